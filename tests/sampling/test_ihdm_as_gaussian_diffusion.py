"""Heat dissipation as Gaussian diffusion (section 3), against the published heuristic.

Data are N(0, v_i) in each frequency, so that networks which are optimal, and the distributions
that samplers end in, are known in closed form.
"""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.noise import PRIOR, normal
from bdm_tf.parametrisations import PredictStep, PredictX
from bdm_tf.priors import Prior
from bdm_tf.sampling import AncestralSampler, IHDMSampler
from tests import oracle
from tests.sampling.models import ihdm

STEPS, SIGMA, HIGHEST, SIDE = 200, 0.02, 6.0, 4
MANY = (SIDE, SIDE, 64)  # channels are as good as images, and cheaper


def spectrum():
    i = np.arange(SIDE)
    return 1.0 / (1.0 + i[:, None] ** 2 + i**2)


def log_d(t, num_steps):
    """log d_t in float64 `[4, 4]`; times between 0 and 1/K on a straight line of sigma_B."""
    start, n = 1.0 / num_steps, np.pi * np.arange(SIDE) / SIDE
    grown = 0.5 * (HIGHEST / 0.5) ** ((t - start) / (1.0 - start))
    sigma_blur = 0.5 * t / start if t < start else grown
    return -(n[:, None] ** 2 + n**2) * sigma_blur**2 / 2


def reinterpreted(num_steps, steps_of_the_blur=STEPS):
    """End variances of ancestral sampling with E[u_x | u_t], by the linear recursion."""
    v = spectrum()
    w = np.exp(log_d(1.0, steps_of_the_blur)) ** 2 * v + SIGMA**2
    for k in range(num_steps, 0, -1):
        log_s, log_t = (log_d(j / num_steps, steps_of_the_blur) for j in (k - 1, k))
        d_s, d_t, r = np.exp(log_s), np.exp(log_t), np.exp(2 * (log_t - log_s))
        gain = d_t * v / (d_t**2 * v + SIGMA**2)  # E[u_x | u_t] / u_t
        mean = np.sqrt(r) + d_s * (1 - r) * gain  # Eq. 18 with one sigma and r = SNR_t / SNR_s
        w = gain**2 * w if k == 1 else mean**2 * w + SIGMA**2 * (1 - r)
    return w


def heuristic(num_steps, ratio=1.25):
    """End variances of IHDM's sampler with E[A_(k-1) x | u_k] and delta = ratio sigma."""
    v = spectrum()
    w = np.exp(log_d(1.0, num_steps)) ** 2 * v + SIGMA**2
    for k in range(num_steps, 0, -1):
        d_s, d_t = (np.exp(log_d(j / num_steps, num_steps)) for j in (k - 1, k))
        mean = d_s * d_t * v / (d_t**2 * v + SIGMA**2)
        w = mean**2 * w + (0.0 if k == 1 else (ratio * SIGMA) ** 2)
    return w


class ExactStart(Prior):
    """The Gaussian that the data end in."""

    def draw(self, process, seeds, image_shape):
        alpha, sigma = process.alpha_sigma([1.0])
        deviation = tf.sqrt(alpha**2 * spectrum()[None, :, :, None] + sigma**2)
        return process.basis.to_pixel(deviation * normal(seeds, PRIOR, image_shape))


def drawn_variances(sampler, parametrisation, network):
    process = ihdm(STEPS, HIGHEST, SIGMA, shape=MANY)
    variance = spectrum()[None, :, :, None].astype(np.float32)

    def in_pixels(z_t, t):
        alpha, sigma = process.alpha_sigma(t)
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return network(process, z_t, gain, t)

    denoiser = Denoiser(in_pixels, process, parametrisation=parametrisation, prior=ExactStart())
    draw = tf.function(lambda: sampler(denoiser, shape=(50, *MANY), seed=[0, 1], num_steps=STEPS))
    u = oracle.to_frequency(np.float64(draw()))
    return np.mean(u**2, (0, 3)), u.shape[0] * u.shape[3]


def assert_same_variances(found, expected, n):
    """Each frequency's within 5 standard errors of 2.5%, and those of all within 5 of 0.6%."""
    assert n == 3200
    assert (np.abs(found / expected - 1) < 5 * np.sqrt(2 / n)).all()
    assert abs(np.mean(found / expected) - 1) < 5 * np.sqrt(2 / n / SIDE**2)


def test_ihdm_as_gaussian_diffusion_samples_as_its_recursion_says():
    def network(process, z_t, gain, t):  # E[x | z_t]
        return process.basis.to_pixel(gain * process.basis.to_frequency(z_t))

    found, n = drawn_variances(AncestralSampler(), PredictX(), network)
    assert_same_variances(found, reinterpreted(STEPS), n)


def test_the_original_ihdm_samples_as_its_recursion_says():
    def network(process, z_t, gain, t):  # E[A_(k-1) x | z_t] - z_t
        alpha_s, _ = process.alpha_sigma(t - 1.0 / STEPS)
        return process.basis.to_pixel(alpha_s * gain * process.basis.to_frequency(z_t)) - z_t

    found, n = drawn_variances(IHDMSampler(1.25 * SIGMA), PredictStep(), network)
    assert_same_variances(found, heuristic(STEPS), n)


def test_the_exact_posterior_finds_the_datas_variance_and_the_published_delta_does_not():
    data = spectrum()
    # With the published 200 steps each: 93% of the variance (the highest frequency 85%, the mean
    # 100%) against 77% (72% and 97%). Half of white noise's error is what 200 steps leave out.
    exact, published = reinterpreted(200) / data, heuristic(200) / data
    assert 0.92 < np.median(exact) < 0.94 and exact.min() > 0.84 and exact.max() < 1.0
    assert 0.76 < np.median(published) < 0.77 and published.min() < 0.73
    assert (1 - exact < 0.6 * (1 - published)).all()
    # More steps of the same process: 99%, and 95% where the noise of 0.02 hides the most.
    exact = reinterpreted(2000) / data
    assert 0.985 < np.median(exact) and exact.min() > 0.95 and np.sort(exact.ravel())[1] > 0.98
    assert (np.abs(1 - reinterpreted(5000) / data) <= np.abs(1 - exact)).all()
    # More steps of the original leave it where it was, and take the mean's variance as well.
    published = heuristic(2000) / data
    assert 0.77 < np.median(published) < 0.78 and published.max() < 0.85


@pytest.mark.parametrize("ratio", [1.0, 1.25, 1.3, np.sqrt(2)])
def test_the_heuristic_leaves_half_of_delta2_over_sigma2_of_the_variance(ratio):
    # A step towards E[x | u] is Langevin's of length sigma^2, whose noise would be sqrt(2) sigma.
    found = np.median(heuristic(5000, ratio) / spectrum())
    np.testing.assert_allclose(found, ratio**2 / 2, rtol=0.02)
