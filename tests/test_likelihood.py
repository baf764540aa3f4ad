"""The bound's terms against closed forms in float64."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.diffusion.noise_schedules import GeometricNoise
from bdm_tf.diffusion.progressive import ProgressiveNoise
from bdm_tf.diffusion.relay import LogNormalNoise, PatchDCT
from bdm_tf.diffusion.shaped_noise import BlockNoise, EqualSNRNoise, PowerLawNoise
from bdm_tf.diffusion.warm import BlurByNoise
from bdm_tf.likelihood import (
    diffusion_term,
    low_discrepancy,
    reconstruction_term,
    variational_bound,
)
from bdm_tf.priors import StandardNormal
from bdm_tf.spectrum import Spectrum
from tests import oracle

BLUR = 2.0
DRAWS = 40_000
SIGMA = GeometricNoise(0.002, 80.0)


@pytest.fixture(scope="module")
def process():
    return BlurringProcess((4, 4, 1), blur=BlurSchedule(sigma_blur_max=BLUR))


def spectrum():
    i, j = np.meshgrid(np.arange(4), np.arange(4), indexing="ij")
    return (1.0 / (1.0 + i**2 + j**2))[None, :, :, None]


def optimal(process):
    """The denoiser that is best for images whose coefficients are N(0, spectrum)."""

    def network(z_t, t):
        alpha_t, sigma_t = process.alpha_sigma(t)
        gain = sigma_t / (alpha_t**2 * spectrum() + sigma_t**2)
        return process.basis.to_pixel(gain * process.basis.to_frequency(z_t))

    return Denoiser(network, process)


def coefficients(seed=0):
    return np.random.default_rng(seed).normal(size=(1, 4, 4, 1)) * np.sqrt(spectrum())


def estimates(process, num_steps=None, importance=True):
    """Many draws of the diffusion term of one image."""
    u_x = np.repeat(coefficients(), DRAWS, 0).astype(np.float32)
    u_eps = np.random.default_rng(1).normal(size=u_x.shape).astype(np.float32)
    places = low_discrepancy(np.arange(DRAWS), 2)
    settings = dict(num_steps=num_steps, importance=importance)
    return diffusion_term(optimal(process), u_x, u_eps, places, **settings).numpy()


def gaussian_kl(mean_p, variance_p, mean_q, variance_q):
    ratio = variance_p / variance_q
    return 0.5 * np.sum(ratio + (mean_p - mean_q) ** 2 / variance_q - 1 - np.log(ratio))


def assert_close_to(values, exact):
    error = values.std() / np.sqrt(len(values))
    assert error < 0.02 * exact
    assert abs(values.mean() - exact) < 4 * error


@pytest.mark.parametrize("importance", [True, False])
def test_the_optimal_network_leaves_the_divergence_at_t_0(process, importance):
    alpha, sigma = oracle.alpha_sigma([0.0], 4, 4, BLUR)
    u_x = coefficients()
    marginal = alpha**2 * spectrum() + sigma**2
    exact = gaussian_kl(alpha * u_x, sigma**2 * np.ones_like(u_x), 0.0, marginal)
    prior = StandardNormal().divergence(process, u_x.astype(np.float32)).numpy()[0]
    assert_close_to(prior + estimates(process, importance=importance), exact)


@pytest.mark.parametrize("importance", [True, False])
def test_a_bound_of_few_steps_is_the_sum_of_their_divergences(process, importance):
    num_steps, u_x, exact = 5, coefficients(), 0.0
    for k in range(1, num_steps + 1):
        s, t = [(k - 1) / num_steps], [k / num_steps]
        alpha, sigma = oracle.alpha_sigma(t, 4, 4, BLUR)
        _, coeff_u_x, sigma2_denoise = oracle.denoising_distribution(s, t, 4, 4, BLUR)
        gain = sigma / (alpha**2 * spectrum() + sigma**2)
        # u_x_hat = (u_t - sigma gain u_t) / alpha with u_t ~ N(alpha u_x, sigma^2)
        shrink = (1 - sigma * gain) / alpha
        error2 = ((shrink * alpha - 1) * u_x) ** 2 + (shrink * sigma) ** 2
        exact += np.sum(coeff_u_x**2 * error2 / (2 * sigma2_denoise))
    assert_close_to(estimates(process, num_steps, importance), exact)


def test_many_steps_approach_continuous_time(process):
    continuous = estimates(process).mean()
    few, more, many = (estimates(process, n).mean() - continuous for n in (100, 1000, 10_000))
    assert few > 5 * more > 25 * many > 0  # the gap closes like 1 / T


def with_spectrum(noise, blur=None, basis=None):
    blur = blur or BlurSchedule(0.0)
    process = BlurringProcess((4, 4, 1), basis=basis, noise=noise, blur=blur)
    if process.needs_spectrum:
        process.use_spectrum(Spectrum(np.zeros((4, 4, 1)), spectrum()[0]))
    return process


@pytest.mark.parametrize(
    "noise, more",
    [
        (SIGMA, {}),
        (PowerLawNoise(exponent=-0.5, offset=0.1), {}),
        (EqualSNRNoise(), {}),
        (BlockNoise(LogNormalNoise()), {"blur": BlurSchedule(3.0), "basis": PatchDCT(2)}),
        (ProgressiveNoise(sigma_last=0.08), {}),
        (SIGMA, {"blur": BlurByNoise(SIGMA, 0.5)}),
    ],
    ids=["EDM", "power law", "EqualSNR", "relay", "progressive", "warm"],
)
def test_the_bound_of_gaussian_data_is_the_integral_of_the_signal_to_noise_ratio(noise, more):
    process, rng = with_spectrum(noise, **more), np.random.default_rng(3)
    u_x = np.float32(rng.normal(size=(DRAWS, 4, 4, 1)) * np.sqrt(spectrum()))
    u_eps, places = np.float32(rng.normal(size=u_x.shape)), low_discrepancy(np.arange(DRAWS), 2)
    nats = diffusion_term(optimal(process), u_x, u_eps, places, num_steps=None, importance=True)
    alpha, sigma = (np.float64(v) for v in process.alpha_sigma([0.0, 1.0]))
    ends = 0.5 * np.log1p(spectrum() * (alpha / sigma) ** 2).sum((1, 2, 3))
    assert_close_to(np.float64(nats).reshape(40, -1).mean(1), ends[0] - ends[1])


def test_importance_sampling_lowers_the_variance(process):
    assert estimates(process).std() < 0.5 * estimates(process, importance=False).std()


def test_even_places_beat_random_ones():
    even = [low_discrepancy(np.arange(k, k + 100), 0).mean() for k in range(0, 5000, 100)]
    assert np.std(even) < 0.25 * np.sqrt(1 / 12 / 100)
    assert low_discrepancy(np.arange(10**6), 0).max() < 1.0


def test_the_reconstruction_term_is_the_log_probability_of_the_level(process):
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (6, 4, 4, 1))
    levels[0], levels[1] = 0, 255
    u_eps = rng.normal(size=levels.shape)
    x = levels / 127.5 - 1.0
    found = reconstruction_term(process, x.astype(np.float32), u_eps.astype(np.float32))
    alpha, sigma = oracle.alpha_sigma([0.0], 4, 4, BLUR)
    pixels = oracle.to_pixel(alpha * oracle.to_frequency(x) + sigma * u_eps) / alpha[0, 0, 0, 0]
    scale = float(sigma[0, 0, 0, 0] / alpha[0, 0, 0, 0])
    density = scipy.stats.norm.logpdf(pixels[..., None], np.arange(256) / 127.5 - 1.0, scale)
    log_p = density - scipy.special.logsumexp(density, -1, keepdims=True)
    expected = -np.take_along_axis(log_p, levels[..., None], -1).sum((1, 2, 3, 4))
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_the_prior_term_is_the_divergence_from_white_noise(process):
    u_x = 30 * coefficients()  # visible in spite of the noise
    alpha, sigma = oracle.alpha_sigma([1.0], 4, 4, BLUR)
    exact = gaussian_kl(alpha * u_x, sigma**2 * np.ones_like(u_x), 0.0, 1.0)
    found = StandardNormal().divergence(process, u_x.astype(np.float32)).numpy()[0]
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-6)


def test_the_bound_is_that_of_its_image_whatever_the_batch(process):
    images = np.random.default_rng(0).integers(0, 256, (1000, 4, 4, 1)).astype(np.uint8)
    seeds = np.arange(2000, dtype=np.int32).reshape(1000, 2)
    places = low_discrepancy(np.arange(1000), 0)

    def bound(rows):
        values = dict(seeds=seeds[rows], places=places[rows])
        return variational_bound(optimal(process), tf.constant(images[rows]), **values)

    whole, part = bound(slice(0, 1000)), bound(slice(2, 3))
    for term in whole:
        np.testing.assert_allclose(whole[term][2:3], part[term], rtol=1e-4)
    assert set(whole) == {"prior", "diffusion", "reconstruction"}
    # Uniform levels carry 8 bits each; a bound lies above the entropy.
    assert 8.0 < sum(np.mean(v) for v in whole.values()) < 40.0
