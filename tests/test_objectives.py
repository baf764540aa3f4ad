"""What networks learn by, against formulas in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.diffusion.bases import DCT, HaarWavelet, Hadamard, PixelBasis
from bdm_tf.diffusion.blur_schedules import LogBlur
from bdm_tf.diffusion.noise_schedules import GeometricNoise
from bdm_tf.likelihood import diffusion_term
from bdm_tf.objectives import BlurredMSE, ImageL1, PredictionMSE, StepMSE, VariationalLoss
from bdm_tf.parametrisations import PredictResidual, PredictStep, PredictX
from tests import oracle
from tests.toy_models import (
    EACH,
    PROCESSES,
    TIMES,
    answering,
    blurring,
    cold,
    draw,
    heated,
    ihdm,
    small_network,
)


@EACH
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_a_perfect_answer_has_no_loss(process, parametrisation):
    x, noise = draw()
    eps = process.basis.noise(noise)
    denoiser = answering(parametrisation, process, x=x, eps=eps, t=TIMES)
    np.testing.assert_array_equal(PredictionMSE()(denoiser, x, TIMES, noise), np.zeros(4))


def test_the_papers_loss_is_the_mean_squared_error_of_eps():
    x, noise = draw()
    alpha, sigma = oracle.alpha_sigma(TIMES.astype(np.float64), 4, 4, 2.0)
    z_t = oracle.to_pixel(alpha * oracle.to_frequency(np.float64(x))) + sigma * noise
    answer = small_network(tf.cast(z_t, tf.float32), TIMES)
    expected = np.mean((np.float64(answer) - noise) ** 2, (1, 2, 3))
    found = PredictionMSE()(Denoiser(small_network, blurring()), x, TIMES, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("basis", [DCT(), PixelBasis(), HaarWavelet(), Hadamard()])
def test_without_blur_every_basis_trains_plain_denoising_diffusion(basis):
    x, noise = draw()
    a, sigma = (
        np.float32(v)[:, None, None, None]
        for v in oracle.noise_scaling_cosine(TIMES.astype(np.float64))
    )
    answer = small_network(a * x + sigma * noise, TIMES)
    expected = np.mean((answer - noise) ** 2, (1, 2, 3))
    found = PredictionMSE()(Denoiser(small_network, blurring(0.0, basis)), x, TIMES, noise)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    blurred = PredictionMSE()(Denoiser(small_network, blurring(2.0, basis)), x, TIMES, noise)
    assert np.abs(blurred / expected - 1).max() > 1e-3  # a blur is noticed


@EACH
@pytest.mark.parametrize("process", [blurring(), ihdm()], ids=["blur", "IHDM"])
def test_the_variational_loss_is_the_likelihoods_summand_for_each_dimension(
    process, parametrisation
):
    x, noise = draw()
    denoiser = Denoiser(small_network, process, parametrisation=parametrisation)
    u_x, u_eps = (process.basis.to_frequency(v) for v in (x, noise))
    settings = dict(num_steps=None, importance=False)
    nats = diffusion_term(denoiser, u_x, u_eps, tf.constant(TIMES), **settings)
    found = VariationalLoss()(denoiser, x, TIMES, noise)
    np.testing.assert_allclose(found, nats / 32, rtol=1e-4)
    assert np.ptp(found) > 0


def test_the_variational_loss_weights_each_frequency_by_the_fall_of_its_snr():
    x, noise = draw()
    wide = TIMES.astype(np.float64)

    def logsnr(t):
        alpha, sigma = oracle.alpha_sigma(t, 4, 4, 2.0)
        return 2 * np.log(alpha / sigma)

    weights = -0.5 * (logsnr(wide + 1e-6) - logsnr(wide - 1e-6)) / 2e-6
    zero = Denoiser(lambda z_t, t: tf.zeros_like(z_t), blurring())
    found = VariationalLoss()(zero, x, TIMES, noise)
    expected = np.mean(weights * oracle.to_frequency(np.float64(noise)) ** 2, (1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_colds_loss_is_the_mean_absolute_error_at_the_times_of_its_steps():
    x, noise = draw()
    denoiser = Denoiser(small_network, cold(), parametrisation=PredictX())
    s = np.array([1, 7, 21, 50])
    t = np.float32((s - 0.5) / 50)  # a time within each step
    sigma_blur = [np.sqrt(np.sum((0.35 + 0.01 * np.arange(n)) ** 2)) for n in s]
    answer = small_network(np.float32(heated(x, sigma_blur)), np.float32(s / 50))
    expected = np.mean(np.abs(x - answer), (1, 2, 3))
    np.testing.assert_allclose(ImageL1()(denoiser, x, t, noise), expected, rtol=1e-5)
    silent = ImageL1()(denoiser, x, t, 0 * noise)
    np.testing.assert_array_equal(silent, ImageL1()(denoiser, x, t, noise))


def test_softs_loss_is_the_blurred_error_over_the_noise():
    blur = LogBlur(0.01, 2.0)
    process = BlurringProcess((4, 4, 2), noise=GeometricNoise(0.01, 0.1), blur=blur)
    x, noise = draw()
    denoiser = Denoiser(small_network, process, parametrisation=PredictResidual())
    wide = TIMES.astype(np.float64)
    sigma_blur = 0.01 * 200.0**wide
    sigma = (0.01 * 10.0**wide)[:, None, None, None]
    z_t = heated(x, sigma_blur) + sigma * noise
    x_hat = z_t + small_network(tf.cast(z_t, tf.float32), TIMES)
    expected = np.mean(heated(x_hat - x, sigma_blur) ** 2 / sigma**2, (1, 2, 3))
    found = BlurredMSE()(denoiser, x, TIMES, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_step_mse_is_ihdms_loss_on_images_from_0_to_1(k):
    """The original: sum (A_(k-1) y - [u + f(u, k)])^2 with u = A_k y + 0.01 eps, y in [0, 1]."""
    x, noise = draw()
    y = (np.float64(x) + 1) / 2
    sigmas = np.concatenate([[0.0], np.geomspace(0.5, 3.0, 10)])
    u = heated(y, sigmas[k]) + 0.01 * noise
    times = np.full(4, k / 10, np.float32)

    def original(u, t):
        return 0.3 * small_network(u, t)

    def network(z_t, t):  # the same function of images in [-1, 1]: residuals are twice as large
        return 2.0 * original((z_t + 1) / 2, t)

    error = heated(y, sigmas[k - 1]) - (u + original(tf.cast(u, tf.float32), times))
    denoiser = Denoiser(network, ihdm(sigma=0.02), parametrisation=PredictStep())
    found = StepMSE()(denoiser, x, times - np.float32(0.05), noise)
    np.testing.assert_allclose(found, np.sum(error**2, (1, 2, 3)), rtol=1e-5)


def seen_times(objective, num_steps=10):
    """The times that a network is asked for, for even t."""
    seen = []

    def network(z_t, t):
        seen.append(t)
        return z_t

    process = ihdm(num_steps)
    t = tf.constant((np.arange(1000) + 0.5) / 1000, tf.float32)
    x = tf.zeros([1000, 4, 4, 2])
    objective(Denoiser(network, process, parametrisation=PredictStep()), x, t, x)
    return np.unique(seen[0], return_counts=True)


def test_ihdm_trains_all_steps_equally_often():
    times, counts = seen_times(StepMSE())
    np.testing.assert_array_equal(times, np.arange(1, 11, dtype=np.float32) / np.float32(10))
    assert (counts == 100).all()


def test_skip_last_step_never_trains_where_sampling_starts():
    times, counts = seen_times(StepMSE(skip_last_step=True))
    np.testing.assert_array_equal(times, np.arange(1, 10, dtype=np.float32) / np.float32(10))
    assert counts.min() >= 110 and counts.max() <= 112
