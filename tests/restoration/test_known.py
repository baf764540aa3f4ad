"""What is known of an image, against what is exact for Gaussian images."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.parametrisations import PredictX
from bdm_tf.projections import PixelClip, SpectralClip
from bdm_tf.restoration.known import Known, KnownPixels
from bdm_tf.sampling import AncestralSampler, AngleSampler, DDIMSampler, DPMSolver2MSampler
from bdm_tf.spectrum import Spectrum
from bdm_tf.system.errors import UserError
from tests import oracle
from tests.toy_models import blurring, draw, small_network

SHAPE = (4, 4, 2)
RNG = np.random.default_rng(5)
SPECTRUM = Spectrum(RNG.normal(size=SHAPE) * 0.3, RNG.uniform(0.1, 1.0, SHAPE))
SAMPLERS = [AncestralSampler(), DDIMSampler(), AngleSampler(), DPMSolver2MSampler()]
NAMED = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)


def partly_known(u):
    """Values and variances: of the coefficients a third is exact, of the rest nothing is known."""
    exact = np.arange(u[0].size).reshape(u.shape[1:]) % 3 == 0
    return exact, np.where(exact, u, 0.0), np.broadcast_to(np.where(exact, 0.0, np.inf), u.shape)


@NAMED
def test_what_is_known_exactly_is_in_the_sample(sampler):
    process, u = blurring(), RNG.normal(size=(3, *SHAPE))
    exact, values, variance = partly_known(u)
    known = Known(values, variance, after=SpectralClip(2.0))
    denoiser = Denoiser(small_network, process, known, spectrum=SPECTRUM)
    x = sampler(denoiser, shape=u.shape, seed=[0, 7], num_steps=5)
    found = process.basis.to_frequency(x).numpy()
    np.testing.assert_allclose(found[:, exact], u[:, exact], atol=2e-6)
    assert np.abs(found - u)[:, ~exact].min(0).max() > 0.1


def test_where_nothing_is_known_the_sample_is_the_models_own():
    process, u = blurring(), np.zeros((2, *SHAPE))
    known = Known(u, np.full(u.shape, np.inf), after=PixelClip())
    nowhere = KnownPixels(u, tf.ones([1, 1, 1, 1], tf.bool), after=known)
    free, restored = (
        AncestralSampler()(
            Denoiser(small_network, process, projection), shape=u.shape, seed=[0, 7], num_steps=4
        )
        for projection in (PixelClip(), nowhere)
    )
    np.testing.assert_array_equal(free, restored)


Y = np.array([1.5, -0.5])  # what is known of two coefficients, in images of 1x2
COUNT = 4000  # draws of them, each a channel of one image


def optimal(covariance, projection):
    """The denoiser that is exact for Gaussian images of that covariance of their coefficients."""
    process = BlurringProcess((1, 2, COUNT), blur=BlurSchedule(1.0))

    def network(z_t, t):
        alpha, sigma = (v[0, 0, :, 0] * tf.ones(2) for v in process.alpha_sigma(t))
        u_x = estimator(covariance, alpha, sigma, tf) @ process.basis.to_frequency(z_t)[0, 0]
        return process.basis.to_pixel(u_x[None, None])

    image = np.diag(covariance)[None, :, None] * np.ones(COUNT)
    spectrum = Spectrum(np.zeros_like(image), image)
    return Denoiser(network, process, projection, parametrisation=PredictX(), spectrum=spectrum)


def estimator(covariance, alpha, sigma, numbers=np):
    """K of E[u_x | u_t] = K u_t, `[2, 2]`."""
    seen = alpha[:, None] * covariance * alpha + np.eye(2, dtype=np.float32) * sigma**2
    return covariance * alpha @ numbers.linalg.inv(seen)


def recursion(covariance, tau2, num_steps, sigma_blur_max=1.0, repeats=1):
    """Mean and covariance of ancestral samples in float64, where tau^2 is the variance of `Y`."""
    mean, spread, image = np.zeros(2), np.eye(2), np.diag(covariance)
    taken = [k for k in range(num_steps, 1, -1) for _ in range(repeats)] + [1]
    for k, following in zip(taken, [*taken[1:], 0]):
        s, t, shape = [(k - 1) / num_steps], [k / num_steps], (1, 2, sigma_blur_max)
        alpha, sigma = (np.ravel(v) * np.ones(2) for v in oracle.alpha_sigma(t, *shape))
        remaining = image * sigma**2 / (alpha**2 * image + sigma**2)
        weight = remaining / (remaining + tau2)
        matrix, offset = (1 - weight)[:, None] * estimator(covariance, alpha, sigma), weight * Y
        noise = np.zeros(2)
        if k > 1:
            c_t, c_x, noise = map(np.ravel, oracle.denoising_distribution(s, t, *shape))
            matrix, offset = np.diag(c_t) + c_x[:, None] * matrix, c_x * offset
        mean, spread = matrix @ mean + offset, matrix @ spread @ matrix.T + np.diag(noise)
        if following == k:
            again = np.ravel(oracle.alpha_sigma(t, *shape)[0] / oracle.alpha_sigma(s, *shape)[0])
            sigma2_ts = sigma**2 - again**2 * np.ravel(oracle.alpha_sigma(s, *shape)[1]) ** 2
            mean, spread = again * mean, again[:, None] * spread * again + np.diag(sigma2_ts)
    return mean, spread


def bayes(covariance, tau2):
    """Mean and covariance of u_x given `Y`, for finite tau^2 above 0."""
    gain = covariance @ np.linalg.inv(covariance + np.diag(tau2))
    return gain @ Y, covariance - gain @ covariance


@pytest.mark.parametrize("tau2, repeats", [([0.3, 0.1], 1), ([0.0, np.inf], 1), ([0.0, np.inf], 3)])
def test_samples_have_the_mean_and_variance_of_their_recursion(tau2, repeats):
    covariance, steps = np.float32([[1.0, 0.3], [0.3, 0.2]]), 20
    shape = (1, 1, 2, COUNT)
    known = [np.broadcast_to(np.reshape(v, (1, 1, 2, 1)), shape) for v in (Y, tau2)]
    denoiser = optimal(covariance, Known(*known))
    x = AncestralSampler()(denoiser, shape=shape, seed=[0, 3], num_steps=steps, repeats=repeats)
    u = denoiser.process.basis.to_frequency(x).numpy()[0, 0]
    mean, spread = recursion(np.float64(covariance), np.array(tau2), steps, repeats=repeats)
    deviation = np.sqrt(np.diag(spread))
    assert (np.abs(u.mean(1) - mean) <= 5 * deviation / np.sqrt(COUNT) + 1e-6).all()
    assert (np.abs(u.std(1) - deviation) <= 5 * deviation / np.sqrt(2 * COUNT) + 1e-6).all()


def test_the_recursion_is_bayes_where_coefficients_are_independent():
    covariance, tau2 = np.diag([1.0, 0.2]), np.array([0.3, 0.1])
    mean, spread = recursion(covariance, tau2, 4000)
    expected, variance = bayes(covariance, tau2)
    np.testing.assert_allclose(mean, expected, rtol=0.01)
    np.testing.assert_allclose(np.diag(spread), np.diag(variance), rtol=0.02)


def test_blur_and_repeated_steps_bring_unknown_coefficients_nearer_to_bayes():
    # The estimate sees what is known through z_t alone, as noisy as z_t is then; low frequencies
    # that are known are clearer when high ones begin, the more blur the process has. Where steps
    # are repeated, what is known reaches the others before the next step.
    covariance, one_exact = np.array([[1.0, 0.3], [0.3, 0.2]]), np.array([0.0, np.inf])
    exact = bayes(covariance, np.array([1e-12, 1e12]))[0][1]
    means = [recursion(covariance, one_exact, 500, blur)[0][1] for blur in (0.0, 4.0, 20.0)]
    np.testing.assert_allclose(exact, 0.45, rtol=1e-6)
    np.testing.assert_allclose(means, [0.364, 0.407, 0.434], atol=0.001)  # docs/restore.md
    means = [recursion(covariance, one_exact, 500, 0.0, repeats)[0][1] for repeats in (2, 5, 10)]
    np.testing.assert_allclose(means, [0.413, 0.438, 0.444], atol=0.001)


def test_known_pixels_are_in_the_sample():
    process, (x, _) = blurring(), draw()
    unknown = np.zeros((4, 4, 1), bool)
    unknown[:2] = True
    denoiser = Denoiser(small_network, process, KnownPixels(x, unknown, after=PixelClip()))
    found = AncestralSampler()(denoiser, shape=x.shape, seed=[0, 7], num_steps=5)
    np.testing.assert_allclose(found[:, 2:], x[:, 2:], atol=2e-6)
    assert np.abs(found - x)[:, :2].max() > 0.1


def test_without_a_spectrum_images_have_variance_1():
    u = tf.constant(RNG.normal(size=(4, *SHAPE)), tf.float32)
    t = tf.constant([0.1, 0.4, 0.6, 0.9])
    given = {"process": blurring(), "t": t}
    white = Spectrum(np.zeros(SHAPE), np.ones(SHAPE))
    known = Known(tf.ones_like(u), tf.fill(u.shape, 0.2))
    np.testing.assert_array_equal(
        known(u, spectrum=None, **given), known(u, spectrum=white, **given)
    )


def test_parts_that_do_not_go_together_are_refused():
    with pytest.raises(UserError, match=r"one shape \[B, H, W, C\], not of"):
        Known(np.zeros((1, *SHAPE)), np.zeros((2, *SHAPE)))
    with pytest.raises(UserError, match="Known.after = @SpectralClip lacks its parentheses"):
        Known(np.zeros((1, *SHAPE)), np.zeros((1, *SHAPE)), after=SpectralClip)
    clip = Known(np.zeros((1, *SHAPE)), np.zeros((1, *SHAPE)), after=SpectralClip())
    with pytest.raises(UserError, match="SpectralClip needs the mean and variance"):
        clip.check(None)
