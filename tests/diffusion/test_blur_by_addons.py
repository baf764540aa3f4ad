"""Heat dissipation against the Gaussian filter of tensorflow-addons, which knows no cosines."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.diffusion.noise_schedules import ConstantNoise
from tests.conftest import NO_ADDONS

tfa = pytest.importorskip("tensorflow_addons", reason=NO_ADDONS)


@pytest.mark.parametrize("sigma_blur", [1.0, 1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("height, width", [(48, 48), (64, 40)])
def test_dissipation_for_half_the_variance_is_a_gaussian_blur(height, width, sigma_blur):
    x = np.random.default_rng(0).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)
    taps = 2 * int(8 * sigma_blur) + 1
    expected = tfa.image.gaussian_filter2d(x, taps, sigma_blur, padding="SYMMETRIC")
    process = BlurringProcess(
        (height, width, 3), noise=ConstantNoise(0.0), blur=BlurSchedule(sigma_blur, min_scale=0.0)
    )
    t = tf.ones([2])  # where sigma_B is the greatest
    found = process.diffuse(tf.constant(x), t, tf.zeros_like(x))
    # Sampled at whole pixels, a Gaussian's spectrum folds back by exp(-(sigma pi)^2 / 2) at most.
    folded = np.exp(-((sigma_blur * np.pi) ** 2) / 2)
    np.testing.assert_allclose(found, expected, atol=3e-6 + folded)
