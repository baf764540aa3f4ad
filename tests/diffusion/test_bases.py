"""The DCT against its formula and SciPy."""

import numpy as np
import pytest
import scipy.fft
import tensorflow as tf

from bdm_tf.diffusion import DCT
from tests import oracle


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (3, 6, 10, 4), (1, 32, 16, 3)])
def test_dct_is_the_orthonormal_transform_and_inverts(shape):
    x = np.random.default_rng(0).normal(size=shape)
    u = DCT().to_frequency(tf.constant(x, tf.float32)).numpy()
    np.testing.assert_allclose(u, oracle.to_frequency(x), atol=2e-5)
    np.testing.assert_allclose(u, scipy.fft.dctn(x, axes=(1, 2), norm="ortho"), atol=2e-5)
    np.testing.assert_allclose(np.sum(u**2), np.sum(x**2), rtol=1e-5)
    np.testing.assert_allclose(DCT().to_pixel(tf.constant(u)), x, atol=2e-5)


def test_dct_compiles_with_xla():
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 1)).astype(np.float32)
    compiled = tf.function(lambda v: DCT().to_pixel(DCT().to_frequency(v)), jit_compile=True)
    np.testing.assert_allclose(compiled(tf.constant(x)), x, atol=1e-5)


def test_frequencies_follow_height_and_width():
    found = DCT().frequencies_squared(4, 6).numpy()
    i, j = np.meshgrid(np.arange(4), np.arange(6), indexing="ij")
    expected = np.pi**2 * (i**2 / 16 + j**2 / 36)
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-6)
