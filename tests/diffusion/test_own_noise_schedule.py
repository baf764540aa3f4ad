"""A noise schedule of one's own, a sigma_t for each frequency: closed forms in float64 (Eq. 19)."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.diffusion.noise_schedules import NoiseSchedule
from bdm_tf.likelihood import low_discrepancy, reconstruction_term, variational_bound
from bdm_tf.objectives import PredictionMSE
from bdm_tf.parametrisations import PredictEps
from bdm_tf.sampling import AncestralSampler
from tests import oracle
from tests.diffusion.test_vector_sigma import TIMES, bayes, diffused, optimal, spectrum


class FrequencyNoise(NoiseSchedule):
    """Variance-preserving in each frequency: `a^2 = exp(-beta)`, `sigma^2 = 1 - exp(-beta)`.

    beta is a straight line of the frequency's own. Lee et al., "Progressive Deblurring of Diffusion
    Models" (2022), have a process of this kind.
    """

    def __init__(self, first, slopes):
        self._first, self._slopes = np.float32(first), np.float32(slopes)

    def _beta(self, t):
        return self._first + self._slopes * t

    def a_sigma(self, t):
        return tf.exp(-0.5 * self._beta(t)), tf.sqrt(-tf.math.expm1(-self._beta(t)))

    def logsnr_difference(self, s, t):
        grown = tf.math.expm1(self._slopes * (t - s)) / -tf.math.expm1(-self._beta(s))
        return -tf.math.log1p(grown)

    def logsnr_slope(self, t):
        return self._slopes / tf.math.expm1(-self._beta(t))


OWN_BLUR = 1.0
SLOPES = (8.0 + np.arange(4)[:, None] + 0.5 * np.arange(4))[None, :, :, None]
FIRST = 0.02 * (SLOPES - 4.0)


def own_process(sigma_blur_max=0.0):
    noise = FrequencyNoise(FIRST, SLOPES)
    return BlurringProcess((4, 4, 1), noise=noise, blur=BlurSchedule(sigma_blur_max))


def own_alpha_sigma(t, sigma_blur_max=0.0):
    t = np.atleast_1d(np.float32(t)).astype(np.float64)
    beta = FIRST + SLOPES * np.reshape(t, [-1, 1, 1, 1])
    d_t = oracle.frequency_scaling(t, 4, 4, sigma_blur_max)
    return np.exp(-beta / 2) * d_t, np.sqrt(1 - np.exp(-beta))


@pytest.mark.parametrize("sigma_blur_max", [0.0, OWN_BLUR])
def test_an_own_schedules_draws_and_posteriors_are_exact(sigma_blur_max):
    process, rng = own_process(sigma_blur_max), np.random.default_rng(0)
    x, eps = rng.uniform(-1, 1, (2, 5, 4, 4, 1))
    alpha, sigma = own_alpha_sigma(TIMES, sigma_blur_max)
    for value, exact in zip(process.alpha_sigma(TIMES), (alpha, sigma)):
        np.testing.assert_allclose(value, exact, rtol=5e-6)
    expected = [diffused(*values) for values in zip(x, eps, alpha, sigma)]
    found = process.diffuse(tf.constant(x, tf.float32), TIMES, tf.constant(eps, tf.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    s = TIMES - np.float32(0.02)
    exact = bayes(*own_alpha_sigma(s, sigma_blur_max), alpha, sigma)
    for value, expected in zip(process.denoising_distribution(s=s, t=TIMES), exact):
        np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_an_own_schedules_draws_have_the_stated_variance():
    process, n, t = own_process(), 20_000, 0.1
    x = np.random.default_rng(1).uniform(-1, 1, (1, 4, 4, 1)).astype(np.float32)
    eps = tf.random.stateless_normal([n, 4, 4, 1], [1, 2])
    z_t = process.diffuse(tf.repeat(tf.constant(x), n, 0), tf.fill([n], t), eps)
    u_t = oracle.to_frequency(np.float64(z_t))
    alpha, sigma = own_alpha_sigma([t])
    mean = (alpha * oracle.to_frequency(np.float64(x)))[0]
    assert (np.abs(u_t.mean(0) - mean) < 5 * sigma[0] / np.sqrt(n)).all()
    assert (np.abs(u_t.var(0) / sigma[0] ** 2 - 1) < 5 * np.sqrt(2 / n)).all()
    assert np.ptp(sigma) > 0.05


@pytest.mark.parametrize("sigma_blur_max", [0.0, OWN_BLUR])
def test_an_own_schedules_loss_is_the_error_of_eps(sigma_blur_max):
    process, rng = own_process(sigma_blur_max), np.random.default_rng(0)
    x, eps = rng.uniform(-1, 1, (2, 5, 4, 4, 1))
    alpha, sigma = own_alpha_sigma(TIMES, sigma_blur_max)
    gain = sigma / (alpha**2 * spectrum(4, 4) + sigma**2)
    answer = oracle.to_pixel(
        gain * (alpha * oracle.to_frequency(x) + sigma * oracle.to_frequency(eps))
    )
    x, noise = (tf.constant(v, tf.float32) for v in (x, eps))
    found = PredictionMSE()(optimal(process, PredictEps()), x, TIMES, noise)
    np.testing.assert_allclose(found, ((answer - eps) ** 2).mean((1, 2, 3)), rtol=1e-4)


def own_bound(num_steps, draws=20_000):
    """The image's coefficients, and its bound's terms in nats for many draws."""
    u = np.random.default_rng(2).normal(size=(1, 4, 4, 1)) * np.sqrt(spectrum(4, 4))
    image = np.clip((oracle.to_pixel(u) + 1) * 127.5, 0, 255).astype(np.uint8)
    seeds = np.stack([np.arange(draws), np.full(draws, 5)], 1).astype(np.int32)
    denoiser = optimal(own_process(), PredictEps())
    terms = tf.function(variational_bound)(
        denoiser,
        tf.repeat(tf.constant(image), draws, 0),
        seeds=tf.constant(seeds),
        places=tf.constant(low_discrepancy(np.arange(draws), 2)),
        num_steps=num_steps,
    )
    nats = {name: np.float64(value) * np.log(2.0) * 16 for name, value in terms.items()}
    return oracle.to_frequency(image / 127.5 - 1.0), nats


def gaussian_kl(mean_p, variance_p, mean_q, variance_q):
    ratio = variance_p / variance_q
    return 0.5 * np.sum(ratio + (mean_p - mean_q) ** 2 / variance_q - 1 - np.log(ratio))


def assert_close_to(values, exact):
    blocks = values.reshape(40, -1).mean(1)  # each of times that are spread evenly
    error = blocks.std(ddof=1) / np.sqrt(40)
    assert error < 0.015 * exact
    assert abs(values.mean() - exact) < 4 * error


def test_an_own_schedules_bound_leaves_the_divergence_at_t_0():
    u_x, terms = own_bound(num_steps=None)
    alpha, sigma = own_alpha_sigma([0.0])
    exact = gaussian_kl(alpha * u_x, sigma**2, 0.0, alpha**2 * spectrum(4, 4) + sigma**2)
    assert_close_to(terms["prior"] + terms["diffusion"], exact)
    alpha, sigma = own_alpha_sigma([1.0])
    prior = gaussian_kl(alpha * u_x, sigma**2, 0.0, 1.0)
    np.testing.assert_allclose(terms["prior"], np.full(20_000, prior), rtol=1e-3)


def test_an_own_schedules_bound_of_few_steps_is_the_sum_of_their_divergences():
    num_steps = 5
    u_x, terms = own_bound(num_steps)
    exact = 0.0
    for k in range(1, num_steps + 1):
        alpha_t, sigma_t = own_alpha_sigma([k / num_steps])
        alpha_s, sigma_s = own_alpha_sigma([(k - 1) / num_steps])
        _, coeff_u_x, variance = bayes(alpha_s, sigma_s, alpha_t, sigma_t)
        gain = alpha_t * spectrum(4, 4) / (alpha_t**2 * spectrum(4, 4) + sigma_t**2)
        error2 = ((gain * alpha_t - 1) * u_x) ** 2 + (gain * sigma_t) ** 2
        exact += np.sum(coeff_u_x**2 * error2 / (2 * variance))
    assert_close_to(terms["diffusion"], exact)


def test_an_own_schedules_reconstruction_is_the_log_probability_of_the_level():
    rng = np.random.default_rng(0)
    levels, u_eps = rng.integers(0, 256, (6, 4, 4, 1)), rng.normal(size=(6, 4, 4, 1))
    x = levels / 127.5 - 1.0
    found = reconstruction_term(own_process(), x.astype(np.float32), u_eps.astype(np.float32))
    alpha, sigma = own_alpha_sigma([0.0])
    matrix = np.kron(oracle.dct_matrix(4), oracle.dct_matrix(4))
    covariance = matrix.T @ np.diag((sigma / alpha).ravel() ** 2) @ matrix
    scale = np.sqrt(np.diag(covariance)).reshape(4, 4, 1, 1)
    assert np.ptp(scale) > 1e-3  # pixels have their own variance as well
    pixels = (x + oracle.to_pixel(sigma / alpha * u_eps))[..., None]
    density = scipy.stats.norm.logpdf(pixels, np.arange(256) / 127.5 - 1.0, scale)
    log_p = density - scipy.special.logsumexp(density, -1, keepdims=True)
    expected = -np.take_along_axis(log_p, levels[..., None], -1).sum((1, 2, 3, 4))
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def own_variance(num_steps):
    """The variance of each frequency at the end, by the linear recursion in float64."""
    v, data = np.ones((1, 4, 4, 1)), spectrum(4, 4)
    for k in range(num_steps, 0, -1):
        alpha, sigma = own_alpha_sigma([k / num_steps])
        gain = alpha * data / (alpha**2 * data + sigma**2)
        c_t, c_x, sigma2 = bayes(*own_alpha_sigma([(k - 1) / num_steps]), alpha, sigma)
        v = gain**2 * v if k == 1 else (c_t + c_x * gain) ** 2 * v + sigma2
    return v[0]


def test_an_own_schedule_samples_gaussian_data_with_the_right_variance():
    n, steps = 3000, 60
    denoiser = optimal(own_process(), PredictEps())
    draw = tf.function(
        lambda: AncestralSampler()(denoiser, shape=(n, 4, 4, 1), seed=[0, 1], num_steps=steps)
    )
    u, expected = oracle.to_frequency(np.float64(draw())), own_variance(steps)
    assert (np.abs(u.var(0) / expected - 1) < 5 * np.sqrt(2 / n)).all()
    assert (np.abs(u.mean(0)) < 5 * np.sqrt(expected / n)).all()
    # The network's last answer leaves out what the noise at t = 1/T hides of the data.
    data, many = spectrum(4, 4)[0], 1000
    alpha, sigma = (v[0] for v in own_alpha_sigma([1 / many]))
    seen = (alpha * data) ** 2 / (alpha**2 * data + sigma**2)
    np.testing.assert_allclose(own_variance(many), seen, rtol=0.02)
