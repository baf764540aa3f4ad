"""Progressive deblurring's speeds: the published products, Bayes and Gaussian data in float64."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.diffusion.progressive import ProgressiveNoise
from bdm_tf.likelihood import diffusion_term, low_discrepancy, no_bound
from bdm_tf.parametrisations import PredictEps, PredictV
from bdm_tf.sampling import AncestralSampler, LogSNRGrid
from bdm_tf.system.errors import UserError
from tests import oracle
from tests.diffusion.test_vector_sigma import bayes, diffused, optimal

N, SIDE = 1000, 8
TIMES = np.float32([0.0, 0.03, 0.2, 0.5, 0.8, 1.0])
BETAS, WIDTHS = np.linspace(1e-4, 0.02, N), 0.15 * (np.arange(1, N + 1) / N) ** 2
SQUARED = np.add.outer(*[(np.pi * np.arange(SIDE) / SIDE) ** 2] * 2)[..., None]


def process(**given):
    noise, none = ProgressiveNoise(**given), BlurSchedule(0.0)
    return BlurringProcess((SIDE, SIDE, 1), noise=noise, blur=none)


def alpha_sigma(t):
    """The closed form in float64, of the times that float32 has."""
    t = np.float64(np.float32(t)).reshape(-1, 1, 1, 1)
    g = (1 + 999 * t) * (1e-4 + 0.0199 * t / 2) + SQUARED * 1000 * 0.15**2 * t**5 / 5
    return np.exp(-g / 2), np.sqrt(-np.expm1(-g))


def test_it_is_the_published_process_step_by_step():
    i = np.array([1, 2, 50, 200, 370, 600, 800, N])
    found = [v.numpy() for v in process().alpha_sigma(np.float32((i - 1) / (N - 1)))]
    blurred = np.exp(-SQUARED * np.cumsum(WIDTHS**2)[i - 1].reshape(-1, 1, 1, 1))
    sums = np.exp(-np.cumsum(BETAS)[i - 1]).reshape(-1, 1, 1, 1) * blurred
    products = np.cumprod(1 - BETAS)[i - 1].reshape(-1, 1, 1, 1) * blurred
    np.testing.assert_allclose(found[0][:, 0, 0], np.sqrt(sums[:, 0, 0]), rtol=2e-5)
    # The integral is short of the last blur's half, 1/400 of the sum.
    np.testing.assert_allclose(-2 * np.log(found[0][-1]), -np.log(sums[-1]), rtol=3e-3)
    for B in (sums, products):
        for value, exact in zip(found, (np.sqrt(B), np.sqrt(1 - B))):
            assert np.abs(value - exact).max() < 3e-3
    np.testing.assert_allclose(found[1][0, 0, 0], 0.01, rtol=1e-4)  # sqrt(beta_min)


def test_every_frequency_keeps_its_variance_and_high_ones_fade_first():
    alpha, sigma = (v.numpy() for v in process().alpha_sigma(TIMES))
    for found, exact in zip((alpha, sigma), alpha_sigma(TIMES)):
        np.testing.assert_allclose(found, exact, rtol=2e-5)
    np.testing.assert_allclose(alpha**2 + sigma**2, np.ones_like(alpha), rtol=1e-6)
    assert (np.diff(alpha[2:, :, 0, 0], axis=1) < 0).all()
    flat, _ = process(sigma_last=0.0).alpha_sigma(TIMES)
    np.testing.assert_allclose(flat, alpha[:, :1, :1] * np.ones_like(flat), rtol=1e-6)


def test_draws_posteriors_and_signal_to_noise_ratios_are_exact():
    rng, s, t = np.random.default_rng(0), TIMES[1:] - np.float32(0.001), TIMES[1:]
    x, eps = rng.uniform(-1, 1, (2, len(t), SIDE, SIDE, 1))
    (alpha_s, sigma_s), (alpha, sigma) = alpha_sigma(s), alpha_sigma(t)
    expected = [diffused(*values) for values in zip(x, eps, alpha, sigma)]
    found = process().diffuse(np.float32(x), t, np.float32(eps))
    np.testing.assert_allclose(found, expected, atol=3e-6)
    for value, exact in zip(
        process().denoising_distribution(s=s, t=t), bayes(alpha_s, sigma_s, alpha, sigma)
    ):
        np.testing.assert_allclose(value, exact, rtol=2e-4)
    change = 2 * np.log(alpha * sigma_s / (alpha_s * sigma))
    np.testing.assert_allclose(process().logsnr_difference(s, t), change, rtol=1e-4)
    h = 2.0**-16
    ends = [2 * np.log(np.divide(*alpha_sigma(v))) for v in (t[:-1] + h, t[:-1] - h)]
    slope = np.subtract(*ends) / (2 * h)
    np.testing.assert_allclose(process().logsnr_slope(t[:-1]), slope, rtol=1e-3)


def test_grids_go_by_the_noise_of_frequency_0():
    log_ratio = process().log_noise_to_signal(TIMES)
    alpha, sigma = alpha_sigma(TIMES)
    np.testing.assert_allclose(log_ratio, np.log(sigma / alpha)[:, 0, 0, 0], rtol=1e-4)
    np.testing.assert_allclose(process().time_at(log_ratio), TIMES, atol=1e-5)
    a, _ = ProgressiveNoise().a_sigma(tf.constant(TIMES))  # of no process
    np.testing.assert_allclose(a, alpha[:, 0, 0, 0], rtol=1e-5)


VARIANCE = 0.4 / (1.0 + SQUARED)[None]


def test_gaussian_data_are_sampled():
    n, sampler = 1500, AncestralSampler(grid=LogSNRGrid())
    denoiser = optimal(process(), PredictV(), variance=VARIANCE)
    given = dict(shape=(n, SIDE, SIDE, 1), seed=[0, 1], num_steps=80)
    u = oracle.to_frequency(np.float64(tf.function(lambda: sampler(denoiser, **given))()))
    assert (np.abs(u.var(0) / VARIANCE[0] - 1) < 0.1 + 5 * np.sqrt(2 / n)).all()


@pytest.mark.parametrize("num_steps", [None, 100])
def test_the_bound_of_gaussian_data_is_the_integral_of_the_signal_to_noise_ratio(num_steps):
    n, rng = 40_000, np.random.default_rng(3)
    u_x = np.float32(rng.normal(size=(n, SIDE, SIDE, 1)) * np.sqrt(VARIANCE))
    u_eps = np.float32(rng.normal(size=u_x.shape))
    denoiser = optimal(process(), PredictV(), variance=VARIANCE)
    places = low_discrepancy(np.arange(n), 2)
    nats = diffusion_term(denoiser, u_x, u_eps, places, num_steps=num_steps, importance=True)
    # Given u_t, u_eps keeps the variance C SNR / (1 + C SNR).
    snr = VARIANCE * np.divide(*alpha_sigma(np.linspace(0, 1, (num_steps or 1) + 1))) ** 2
    terms = -np.diff(np.log1p(snr), axis=0)
    if num_steps:
        terms = (snr[:-1] / snr[1:] - 1) * snr[1:] / (1 + snr[1:])
    blocks = np.float64(nats).reshape(40, -1).mean(1)
    exact, error = 0.5 * terms.sum(), blocks.std(ddof=1) / np.sqrt(40)
    assert error < 0.01 * exact and abs(blocks.mean() - exact) < 4 * error
    assert no_bound(denoiser) is None


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: ProgressiveNoise(beta_min=0.02), "beta_min=0.02 must be below beta_max=0.02"),
        (lambda: ProgressiveNoise(beta_max=1.0), "beta_max=1.0 must be a number above 0, below 1"),
        (lambda: ProgressiveNoise(sigma_last=-1.0), "ProgressiveNoise.sigma_last=-1.0"),
        (lambda: ProgressiveNoise(num_betas=1), "ProgressiveNoise.num_betas=1 must be a whole"),
        (
            lambda: BlurringProcess((8, 8, 1), noise=ProgressiveNoise(), blur=BlurSchedule(4.0)),
            "@ProgressiveNoise.. blurs by itself: give BlurSchedule.sigma_blur_max = 0.0",
        ),
        (lambda: PredictEps().check(process()), "PredictEps divides.*choose PredictV or PredictX"),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
