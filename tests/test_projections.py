"""Bounds on the estimated image, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.parametrisations import PredictX
from bdm_tf.projections import DynamicThreshold, NoProjection, PixelClip, SpectralClip
from bdm_tf.spectrum import Spectrum
from bdm_tf.system.errors import UserError
from tests import oracle
from tests.toy_models import TIMES, blurring, draw

SHAPE = (4, 4, 2)
RNG = np.random.default_rng(3)
SPECTRUM = Spectrum(RNG.normal(size=SHAPE) * 0.1, RNG.uniform(0.1, 1.0, SHAPE))
EVERY = [NoProjection(), PixelClip(), DynamicThreshold(), SpectralClip(2.5)]
EACH = pytest.mark.parametrize("projection", EVERY, ids=lambda p: type(p).__name__)


def projected(projection, u, spectrum=SPECTRUM):
    u = tf.constant(u, tf.float32)
    return projection(u, process=blurring(), spectrum=spectrum, t=tf.constant(TIMES)).numpy()


@EACH
def test_what_lies_within_is_untouched_to_the_bit(projection):
    x = RNG.uniform(-1, 1, (4, *SHAPE)) * 0.1
    u = np.float32(oracle.to_frequency(x))
    np.testing.assert_array_equal(projected(projection, u), u)


@EACH
def test_the_noise_of_what_was_not_moved_is_untouched_to_the_bit(projection):
    # One image within the bounds, one far beyond.
    x = np.stack([np.full(SHAPE, 0.1), np.full(SHAPE, 9.0)]).astype(np.float32)
    z_t, t = draw(shape=(2, *SHAPE))[1], tf.constant([0.3, 0.3])

    def network(z, t):
        return tf.constant(x)

    def estimates(projection):
        denoiser = Denoiser(
            network, blurring(), projection, parametrisation=PredictX(), spectrum=SPECTRUM
        )
        return [v.numpy() for v in denoiser(z_t, t)]

    (eps, u), (free_eps, free_u) = estimates(projection), estimates(None)
    np.testing.assert_array_equal(eps[0], free_eps[0])
    np.testing.assert_array_equal(u[0], free_u[0])
    if not isinstance(projection, NoProjection):
        assert np.abs(u[1] - free_u[1]).max() > 1.0
        # The two still make up z_t (Eq. 20).
        alpha, sigma = oracle.alpha_sigma([0.3], 4, 4, 2.0)
        whole = alpha * u + sigma * eps
        np.testing.assert_allclose(whole, oracle.to_frequency(np.float64(z_t)), atol=1e-5)


def test_coefficients_are_clipped_at_k_deviations_of_the_images_own():
    u = RNG.normal(size=(4, *SHAPE)) * 5
    reach = 1.5 * np.sqrt(SPECTRUM.variance)
    expected = np.clip(u, SPECTRUM.mean - reach, SPECTRUM.mean + reach)
    np.testing.assert_allclose(projected(SpectralClip(1.5), u), expected, rtol=1e-6, atol=1e-7)


def test_a_coefficient_that_never_varies_is_set_to_its_mean():
    variance = np.ones(SHAPE)
    variance[1, 2] = 0.0
    spectrum = Spectrum(np.full(SHAPE, 0.3), variance)
    found = projected(SpectralClip(), RNG.normal(size=(4, *SHAPE)), spectrum)
    np.testing.assert_array_equal(found[:, 1, 2], np.float32(0.3))


def test_pixels_are_clipped_and_thresholds_are_each_images_quantile():
    x = RNG.normal(size=(4, *SHAPE)) * [[[[0.2]]], [[[1.0]]], [[[2.0]]], [[[5.0]]]]
    u = oracle.to_frequency(x)
    clipped = oracle.to_frequency(np.clip(x, -1, 1))
    np.testing.assert_allclose(projected(PixelClip(), u), clipped, atol=1e-5)
    bound = np.quantile(np.abs(x), 0.9, axis=(1, 2, 3), keepdims=True)
    bound = np.maximum(bound, 1.0)
    assert (bound.ravel() > 1.0).tolist() == [False, True, True, True]
    expected = oracle.to_frequency(np.clip(x, -bound, bound) / bound)
    np.testing.assert_allclose(projected(DynamicThreshold(0.9), u), expected, atol=1e-5)
    np.testing.assert_allclose(
        projected(DynamicThreshold(1.0), u),
        oracle.to_frequency(x / np.maximum(np.abs(x).max((1, 2, 3), keepdims=True), 1.0)),
        atol=1e-5,
    )


@pytest.mark.parametrize("k", [0, -1.0, float("nan"), float("inf"), True, "3", None])
def test_a_reach_that_is_none_is_refused(k):
    with pytest.raises(UserError, match=f"num_deviations={k!r} must be a number above 0"):
        SpectralClip(k)


@pytest.mark.parametrize("quantile", [0.0, 1.5])
def test_a_quantile_that_is_none_is_refused(quantile):
    with pytest.raises(UserError, match=f"quantile={quantile} must be a number above 0, at most 1"):
        DynamicThreshold(quantile)


def test_without_a_spectrum_the_clip_says_where_it_comes_from():
    denoiser = Denoiser(lambda z, t: z, blurring(), SpectralClip())
    with pytest.raises(UserError, match="SpectralClip needs the mean and variance.*spectrum.npz"):
        denoiser(draw()[1], tf.constant(TIMES))
