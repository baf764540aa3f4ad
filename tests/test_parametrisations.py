"""What networks predict, against formulas in NumPy."""

import numpy as np
import pytest

from bdm_tf.diffusion.bases import PixelBasis
from bdm_tf.parametrisations import PredictEps, PredictStep, PredictV
from tests import oracle
from tests.toy_models import EACH, PROCESSES, TIMES, answering, blurring, draw, heated, ihdm


@EACH
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_a_perfect_answer_gives_back_the_noise_and_the_image(process, parametrisation):
    x, noise = draw()
    eps = process.basis.noise(noise)
    z_t = process.diffuse(x, TIMES, eps)
    denoiser = answering(parametrisation, process, x=x, eps=eps, t=TIMES)
    u_eps, u_x = denoiser(z_t, TIMES)
    np.testing.assert_allclose(u_eps, process.basis.to_frequency(eps), atol=1e-4)
    tolerance = 1e-4
    if isinstance(parametrisation, PredictEps):  # Eq. 21 divides z_t's rounding by alpha_t
        tolerance = np.maximum(tolerance, 1e-6 / process.alpha_sigma(TIMES)[0])
    assert (np.abs(u_x - process.basis.to_frequency(x)) < tolerance).all()


def test_without_blur_v_is_that_of_progressive_distillation():
    for process in (blurring(0.0), blurring(0.0, PixelBasis())):
        x, eps = draw()
        z_t = process.diffuse(x, TIMES, eps)
        found = PredictV().target(process, x=x, eps=eps, z_t=z_t, t=TIMES)
        a, sigma = (
            v[:, None, None, None] for v in oracle.noise_scaling_cosine(TIMES.astype(np.float64))
        )
        np.testing.assert_allclose(found, a * eps - sigma * x, atol=2e-6)


def test_with_blur_v_is_a_rotation_by_each_frequencys_own_angle():
    x, eps = draw()
    alpha, sigma = oracle.alpha_sigma(TIMES.astype(np.float64), 4, 4, 2.0)
    phi = np.arctan2(sigma, alpha)
    u_x, u_eps = (oracle.to_frequency(np.float64(v)) for v in (x, eps))
    expected = oracle.to_pixel(np.cos(phi) * u_eps - np.sin(phi) * u_x)
    found = PredictV().target(blurring(), x=x, eps=eps, z_t=None, t=TIMES)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_step_is_the_image_one_step_less_blurred():
    process, (x, noise) = ihdm(), draw()
    sigmas = np.concatenate([[0.0], np.geomspace(0.5, 3.0, 10)])
    k = np.array([1, 2, 6, 10])
    z_t = process.diffuse(x, np.float32(k / 10), noise)
    found = PredictStep().target(process, x=x, eps=noise, z_t=z_t, t=np.float32(k / 10))
    np.testing.assert_allclose(found + z_t, heated(x, sigmas[k - 1]), atol=5e-6)
    np.testing.assert_allclose(found[0] + z_t[0], x[0], atol=1e-6)
