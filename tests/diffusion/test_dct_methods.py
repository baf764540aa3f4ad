"""The DCT as an FFT and as a product with its matrix: equal, whatever products round to."""

import numpy as np
import pytest
import scipy.fft
import tensorflow as tf

from bdm_tf.diffusion import DCT
from bdm_tf.system.errors import UserError

SHAPES = [(2, 8, 8, 1), (3, 12, 7, 3), (2, 64, 64, 3)]


def images(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("method", ["fft", "matmul"])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_are_scipys(shape, method, jit_compile):
    basis, x = DCT(method), images(shape)
    there = tf.function(basis.to_frequency, jit_compile=jit_compile)(tf.constant(x))
    expected = scipy.fft.dctn(x.astype(np.float64), axes=(1, 2), norm="ortho")
    np.testing.assert_allclose(there, expected, rtol=0, atol=1e-5)
    back = tf.function(basis.to_pixel, jit_compile=jit_compile)(there)
    np.testing.assert_allclose(back, x, rtol=0, atol=2e-5)


def rounding_einsum(equation, a, b, exact=tf.einsum):
    """What a TPU makes of a float32 product."""
    a, b = (tf.cast(tf.cast(factor, tf.bfloat16), tf.float32) for factor in (a, b))
    return exact(equation, a, b)


def test_rounded_factors_do_not_reach_the_product(monkeypatch):
    x = images((2, 32, 32, 3))
    matrix = np.float32(DCT().matrices(32, 32)[0])
    expected = scipy.fft.dctn(x.astype(np.float64), axes=(1, 2), norm="ortho")
    monkeypatch.setattr(tf, "einsum", rounding_einsum)
    one_pass = tf.einsum("wj,biwc->bijc", matrix, tf.einsum("hi,bhwc->biwc", matrix, x))
    assert np.abs(one_pass - expected).max() > 1e-3  # the emulated rounding is there
    found = DCT("matmul").to_frequency(tf.constant(x))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_gradient_of_the_product_is_that_of_the_fft():
    x, weight = tf.constant(images((2, 6, 10, 2))), images((2, 6, 10, 2))
    gradients = []
    for method in ("fft", "matmul"):
        with tf.GradientTape() as tape:
            tape.watch(x)
            u = DCT(method).to_frequency(x)
            loss = tf.reduce_sum(weight * u**2) + tf.reduce_sum(DCT(method).to_pixel(x) ** 3)
        gradients.append(tape.gradient(loss, x))
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_another_method_is_refused():
    with pytest.raises(UserError, match="DCT.method='fast' must be"):
        DCT("fast")
