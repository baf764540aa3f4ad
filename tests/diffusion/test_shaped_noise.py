"""Noise whose frequencies differ, and Relay Diffusion's schedule, against float64."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.diffusion.bases import PixelBasis
from bdm_tf.diffusion.noise_schedules import ConstantNoise
from bdm_tf.diffusion.progressive import ProgressiveNoise
from bdm_tf.diffusion.relay import LogNormalNoise, PatchDCT
from bdm_tf.diffusion.shaped_noise import BlockNoise, EqualSNRNoise, PowerLawNoise
from bdm_tf.likelihood import no_bound
from bdm_tf.noise_prior import NoisePrior
from bdm_tf.parametrisations import PredictEps
from bdm_tf.sampling import AncestralSampler, LogSNRGrid
from bdm_tf.spectrum import Spectrum
from bdm_tf.system.errors import UserError
from tests import oracle
from tests.diffusion.test_vector_sigma import TIMES, bayes
from tests.toy_models import equal_snr, power_law

SHAPE = (4, 4, 2)
_INDEX = np.add.outer(np.arange(4) ** 2, np.arange(4) ** 2)[..., None]
SPECTRUM = Spectrum(np.zeros(SHAPE), np.broadcast_to(0.3 / (1.0 + _INDEX), SHAPE))
VARIANCE = np.float64(SPECTRUM.variance)
RADIUS = np.hypot(*np.meshgrid(np.arange(4) / 8, np.arange(4) / 8))[..., None]  # periods per pixel
CASES = {
    "power law": (power_law(), (RADIUS + 0.1) ** -0.5),
    "equal SNR": (equal_snr(SPECTRUM), np.sqrt(VARIANCE / VARIANCE.mean())),
}
EACH = pytest.mark.parametrize("process, w", CASES.values(), ids=CASES)


def alpha_sigma(t, w):
    alpha, sigma = oracle.alpha_sigma(np.float64(np.float32(t)), 4, 4, 0.0)
    return alpha, sigma * w


@EACH
def test_draws_and_posteriors_are_those_of_the_weighted_noise(process, w):
    rng = np.random.default_rng(0)
    x, eps = rng.uniform(-1, 1, (2, len(TIMES), *SHAPE))
    alpha, sigma = alpha_sigma(TIMES, w)
    u = alpha * oracle.to_frequency(x) + sigma * oracle.to_frequency(eps)
    found = process.diffuse(np.float32(x), TIMES, np.float32(eps))
    np.testing.assert_allclose(found, oracle.to_pixel(u), atol=3e-6)
    s = TIMES - np.float32(0.02)
    exact = bayes(*alpha_sigma(s, w), alpha, sigma)
    for value, expected in zip(process.denoising_distribution(s=s, t=TIMES), exact):
        value = np.broadcast_to(value, np.shape(value)[:3] + (w.shape[-1],))
        np.testing.assert_allclose(value, expected * np.ones_like(value), rtol=1e-4)


def test_with_noise_by_the_spectrum_all_frequencies_have_the_mean_signal_to_noise_ratio():
    alpha, sigma = equal_snr(SPECTRUM).alpha_sigma(TIMES)
    ratio = np.float64(alpha) ** 2 * VARIANCE / np.float64(sigma) ** 2
    a, white = oracle.alpha_sigma(np.float64(TIMES), 4, 4, 0.0)
    mean = np.mean(a**2 * VARIANCE / white**2, axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(ratio, mean * np.ones_like(ratio), rtol=1e-5)


@EACH
def test_the_data_are_sampled_from_noise_of_the_same_shape(process, w):
    n, steps, variance = 2000, 60, np.float32(VARIANCE)

    def network(z_t, t):
        alpha, sigma = process.alpha_sigma(t)
        u = sigma / (alpha**2 * variance + sigma**2) * process.basis.to_frequency(z_t)
        return process.basis.to_pixel(u)

    denoiser = Denoiser(network, process, parametrisation=PredictEps(), prior=NoisePrior())
    sampler = AncestralSampler(grid=LogSNRGrid())
    draw = tf.function(lambda: sampler(denoiser, shape=(n, *SHAPE), seed=[0, 1], num_steps=steps))
    found = oracle.to_frequency(np.float64(draw())).var(0)
    # What 60 steps leave out, most of it where there is the most noise.
    assert (np.abs(found / VARIANCE - 1) < 0.12 + 5 * np.sqrt(2 / n)).all()
    assert no_bound(denoiser) is None


def test_blocks_share_a_part_of_the_noise():
    process = BlurringProcess(
        (4, 8, 1),
        basis=PatchDCT(4),
        noise=BlockNoise(ConstantNoise(0.7), 0.15),
        blur=BlurSchedule(0.0),
    )
    eye = np.eye(32).reshape(32, 4, 8, 1)
    root = process.diffuse(np.zeros_like(eye, np.float32), np.zeros(32), np.float32(eye))
    root = np.float64(root).reshape(32, 32)
    block = (np.arange(32) % 8) // 4  # of a pixel
    shared = 0.15**2 * (block[:, None] == block)
    np.testing.assert_allclose(root @ root.T, 0.7**2 * (np.eye(32) + shared), atol=1e-6)


def published(u):
    """sigma of the published code for its time u, clamped."""
    u = np.maximum(np.float64(u), 0.93 * scipy.stats.norm.cdf((np.log(0.0075) + 1.2) / 1.2))
    return np.exp(1.2 * scipy.stats.norm.ppf(0.93 * u) - 1.2)


def test_log_normal_noise_is_the_quantile_of_the_time():
    noise = LogNormalNoise()
    t = np.float32([0.0, 1e-4, 0.002, 0.1, 0.5, 0.9, 1.0])
    a, sigma = noise.a_sigma(tf.constant(t))
    np.testing.assert_allclose(sigma, published(t), rtol=1e-6)
    assert (a.numpy() == 1).all() and noise.keeps_scale
    later = np.float32(t[2:-1] + 0.001)
    exact = -2.0 * np.log(published(later) / published(t[2:-1]))
    np.testing.assert_allclose(noise.logsnr_difference(t[2:-1], later), exact, rtol=1e-6)
    h, middle = 1e-6, np.float64(t[2:-1])
    slope = -np.log(published(middle + h) / published(middle - h)) / h
    np.testing.assert_allclose(noise.logsnr_slope(t[2:-1]), slope, rtol=1e-4)
    assert noise.logsnr_slope(tf.constant([1e-4])) == 0
    np.testing.assert_allclose(noise.time_at(np.log(published(t[2:]))), t[2:], rtol=1e-4)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: LogNormalNoise(share=1.0), "share=1.0 must be a number above 0, below 1"),
        (lambda: LogNormalNoise(sigma_min=1e5), r"sigma_min=100000.0.*exp\(log_mean\) = 0.301"),
        (lambda: BlockNoise(scale=-1.0), "BlockNoise.scale=-1.0 must be a number at least 0"),
        (
            lambda: BlockNoise().for_images(PixelBasis(), SHAPE),
            "means of blocks, which PixelBasis has not: give .*@PatchDCT",
        ),
        (lambda: PowerLawNoise(offset=0.0), "PowerLawNoise.offset=0.0 must be a number"),
        (lambda: EqualSNRNoise(least=0.0), "EqualSNRNoise.least=0.0 must be a number"),
        (
            lambda: BlurringProcess(SHAPE, noise=EqualSNRNoise()).alpha_sigma([0.5]),
            "EqualSNRNoise needs the spectrum of the training images.*use_spectrum",
        ),
        (lambda: equal_snr(Spectrum(np.zeros(SHAPE), np.zeros(SHAPE))), "they are all the same"),
        (lambda: EqualSNRNoise(PowerLawNoise()), "EqualSNRNoise.noise = @PowerLawNoise.. gives"),
        (
            lambda: PowerLawNoise(ProgressiveNoise()),
            "@ProgressiveNoise.. gives frequencies",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
