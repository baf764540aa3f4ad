"""What networks predict and what they learn by, against formulas in NumPy."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess, BlurSchedule, CosineSchedule
from bdm_tf.diffusion.bases import DCT, HaarWavelet, Hadamard, MatrixBasis, PixelBasis
from bdm_tf.diffusion.blur_schedules import CumulativeBlur, LogBlur
from bdm_tf.diffusion.noise_schedules import ConstantNoise, GeometricNoise
from bdm_tf.errors import UserError
from bdm_tf.likelihood import diffusion_term
from bdm_tf.networks import UNet
from bdm_tf.networks.frequency_unet import FrequencyUNet
from bdm_tf.objectives import BlurredMSE, ImageL1, PredictionMSE, StepMSE, VariationalLoss
from bdm_tf.parametrisations import PredictEps, PredictResidual, PredictStep, PredictV, PredictX
from bdm_tf.sampling import (
    AncestralSampler,
    DDIMSampler,
    IHDMSampler,
    MomentumSampler,
    NaiveSampler,
)
from tests import oracle

TIMES = np.float32([0.05, 0.2, 0.4, 0.7])
EVERY = [PredictEps(), PredictX(), PredictResidual(), PredictV()]
EACH = pytest.mark.parametrize("parametrisation", EVERY, ids=lambda p: type(p).__name__)


def blurring(sigma_blur_max=2.0, basis=None):
    blur = BlurSchedule(sigma_blur_max, min_scale=0.001)
    return BlurringProcess((4, 4, 2), basis=basis, noise=CosineSchedule(), blur=blur)


def ihdm(num_steps=10, sigma=0.02):
    blur = LogBlur(0.5, 3.0, num_steps=num_steps)
    return BlurringProcess((4, 4, 2), noise=ConstantNoise(sigma), blur=blur)


def cold():
    return BlurringProcess((4, 4, 2), noise=ConstantNoise(0.0), blur=CumulativeBlur())


PROCESSES = {
    "blur": blurring(),
    "no blur": blurring(0.0),
    "pixels": blurring(0.0, PixelBasis()),
    "not orthonormal": blurring(2.0, MatrixBasis(np.eye(4) + 0.3 * np.eye(4, k=1), np.eye(4))),
    "IHDM": ihdm(),
}


def draw(seed=0, shape=(4, 4, 4, 2)):
    rng = np.random.default_rng(seed)
    x, noise = rng.uniform(-1, 1, shape), rng.normal(size=shape)
    return tf.constant(x, tf.float32), tf.constant(noise, tf.float32)


def small_network(z_t, t):
    """Two fixed layers over the channels and their neighbours, and the time."""
    kernels = np.random.default_rng(9).normal(size=(2, 3, 3, 2, 2)).astype(np.float32) * 0.3
    hidden = tf.nn.tanh(tf.nn.conv2d(z_t, kernels[0], 1, "SAME") + tf.reshape(t, [-1, 1, 1, 1]))
    return tf.nn.conv2d(hidden, kernels[1], 1, "SAME")


def answering(parametrisation, process, *, x, eps, t):
    """A denoiser whose network knows the image and the noise."""

    def network(z_t, t):
        return parametrisation.target(process, x=x, eps=eps, z_t=z_t, t=t)

    return Denoiser(network, process, parametrisation=parametrisation)


# --- parametrisations -----------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_a_perfect_answer_gives_back_the_noise_and_the_image(process, parametrisation):
    x, noise = draw()
    eps = process.basis.noise(noise)
    z_t = process.diffuse(x, TIMES, eps)
    denoiser = answering(parametrisation, process, x=x, eps=eps, t=TIMES)
    u_eps, u_x = denoiser(z_t, TIMES)
    np.testing.assert_allclose(u_eps, process.basis.to_frequency(eps), atol=1e-4)
    tolerance = 1e-4
    if isinstance(parametrisation, PredictEps):  # Eq. 21 divides z_t's rounding by alpha_t
        tolerance = np.maximum(tolerance, 1e-6 / process.alpha_sigma(TIMES)[0])
    assert (np.abs(u_x - process.basis.to_frequency(x)) < tolerance).all()


def test_without_blur_v_is_that_of_progressive_distillation():
    for process in (blurring(0.0), blurring(0.0, PixelBasis())):
        x, eps = draw()
        z_t = process.diffuse(x, TIMES, eps)
        found = PredictV().target(process, x=x, eps=eps, z_t=z_t, t=TIMES)
        a, sigma = (
            v[:, None, None, None] for v in oracle.noise_scaling_cosine(TIMES.astype(np.float64))
        )
        np.testing.assert_allclose(found, a * eps - sigma * x, atol=2e-6)


def test_with_blur_v_is_a_rotation_by_each_frequencys_own_angle():
    x, eps = draw()
    alpha, sigma = oracle.alpha_sigma(TIMES.astype(np.float64), 4, 4, 2.0)
    phi = np.arctan2(sigma, alpha)
    u_x, u_eps = (oracle.to_frequency(np.float64(v)) for v in (x, eps))
    expected = oracle.to_pixel(np.cos(phi) * u_eps - np.sin(phi) * u_x)
    found = PredictV().target(blurring(), x=x, eps=eps, z_t=None, t=TIMES)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_step_is_the_image_one_step_less_blurred():
    process, (x, noise) = ihdm(), draw()
    sigmas = np.concatenate([[0.0], np.geomspace(0.5, 3.0, 10)])
    k = np.array([1, 2, 6, 10])
    z_t = process.diffuse(x, np.float32(k / 10), noise)
    found = PredictStep().target(process, x=x, eps=noise, z_t=z_t, t=np.float32(k / 10))
    np.testing.assert_allclose(found + z_t, heated(x, sigmas[k - 1]), atol=5e-6)
    np.testing.assert_allclose(found[0] + z_t[0], x[0], atol=1e-6)


def heated(x, sigma_blur):
    """A_k x in float64 for a blur of each image."""
    n = np.pi * np.arange(4) / 4
    squared = (n[:, None] ** 2 + n**2)[None, :, :, None]
    tau = np.reshape(sigma_blur, [-1, 1, 1, 1]) ** 2 / 2
    return oracle.to_pixel(np.exp(-squared * tau) * oracle.to_frequency(np.float64(x)))


# --- objectives -----------------------------------------------------------------------------------


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


# --- what does not go together --------------------------------------------------------------------


def denoiser_of(process, parametrisation):
    return Denoiser(small_network, process, parametrisation=parametrisation)


def refused(check, *arguments, words):
    with pytest.raises(UserError, match=words):
        check(*arguments)


@pytest.mark.parametrize(
    "objective, process, parametrisation, words",
    [
        (PredictionMSE(), ihdm(), PredictStep(), "PredictionMSE.*PredictStep: give StepMSE"),
        (VariationalLoss(), ihdm(), PredictStep(), "VariationalLoss.*give StepMSE"),
        (ImageL1(), ihdm(), PredictStep(), "ImageL1.*give StepMSE"),
        (BlurredMSE(), ihdm(), PredictStep(), "BlurredMSE.*give StepMSE"),
        (StepMSE(), ihdm(), PredictX(), "StepMSE goes with .*PredictStep"),
        (StepMSE(), blurring(), PredictStep(), r"blur of K steps.*LogBlur\.num_steps"),
        (VariationalLoss(), cold(), PredictX(), "VariationalLoss needs noise"),
        (BlurredMSE(), cold(), PredictX(), "sigma_t, which is 0: give ImageL1"),
    ],
)
def test_losses_refuse_models_that_cannot_learn_by_them(objective, process, parametrisation, words):
    refused(objective.check, denoiser_of(process, parametrisation), words=words)


@pytest.mark.parametrize(
    "sampler, process, parametrisation, words",
    [
        (AncestralSampler(), ihdm(), PredictStep(), "PredictStep: sample with IHDMSampler"),
        (DDIMSampler(), ihdm(), PredictStep(), "PredictStep: sample with IHDMSampler"),
        (MomentumSampler(), ihdm(), PredictStep(), "PredictStep: sample with IHDMSampler"),
        (NaiveSampler(), ihdm(), PredictStep(), "PredictStep: sample with IHDMSampler"),
        (AncestralSampler(), cold(), PredictX(), "needs noise.*MomentumSampler"),
        (DDIMSampler(), cold(), PredictX(), "needs noise.*NaiveSampler"),
        (IHDMSampler(), ihdm(), PredictX(), "IHDMSampler goes with .*PredictStep"),
        (IHDMSampler(), blurring(), PredictStep(), r"blur of K steps.*LogBlur\.num_steps"),
    ],
)
def test_samplers_refuse_models_that_they_are_not_for(sampler, process, parametrisation, words):
    denoiser = denoiser_of(process, parametrisation)
    refused(sampler.check, denoiser, words=words)
    with pytest.raises(UserError, match=words):
        sampler(denoiser, shape=(1, 4, 4, 2), seed=[0, 0], num_steps=10)


def test_predict_eps_refuses_what_has_no_noise_or_no_signal():
    refused(PredictEps().check, cold(), words="sigma_t is 0: choose PredictX")
    strong = LogBlur(0.5, 24.0, num_steps=200)
    vanishing = BlurringProcess((32, 32, 3), noise=ConstantNoise(0.02), blur=strong)
    assert vanishing.alpha_sigma([1.0])[0].numpy().min() == 0.0  # it underflows
    refused(PredictEps().check, vanishing, words="min_scale to 0.001.*or choose PredictX")
    for variance_preserving in (False, True):
        floored = BlurringProcess(
            (32, 32, 3),
            noise=ConstantNoise(0.02),
            blur=LogBlur(0.5, 24.0, num_steps=200, min_scale=0.001),
            variance_preserving=variance_preserving,
        )
        PredictEps().check(floored)
    PredictEps().check(BlurringProcess((32, 32, 3)))


def test_a_step_names_neither_noise_nor_image():
    x, _ = draw()
    denoiser = denoiser_of(ihdm(), PredictStep())
    refused(denoiser, x, tf.constant(TIMES), words="one step earlier.*IHDMSampler")


def test_what_goes_together_is_accepted():
    for parametrisation in EVERY:
        parametrisation.check(blurring())
        for objective in (PredictionMSE(), VariationalLoss(), ImageL1(), BlurredMSE()):
            objective.check(denoiser_of(blurring(), parametrisation))
        AncestralSampler().check(denoiser_of(blurring(), parametrisation), 1000)
    StepMSE().check(denoiser_of(ihdm(), PredictStep()))
    IHDMSampler().check(denoiser_of(ihdm(), PredictStep()), 10)
    PredictX().check(cold())
    ImageL1().check(denoiser_of(cold(), PredictX()))
    MomentumSampler().check(denoiser_of(cold(), PredictX()), 50)


# --- the network that sees frequencies ------------------------------------------------------------

SMALL_UNET = functools.partial(
    UNet, channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,)
)


@pytest.fixture(scope="module")
def frequency_unet():
    network = FrequencyUNet((8, 8, 3), basis=DCT(), network=SMALL_UNET)
    rng = np.random.default_rng(0)
    for variable in network.trainable_variables:  # the last layer starts with zeros
        variable.assign(rng.normal(size=variable.shape) * 0.2)
    return network


def test_a_frequency_unet_is_the_unet_between_two_transforms(frequency_unet):
    z_t, _ = draw(shape=(2, 8, 8, 3))
    t = tf.constant([0.2, 0.9])
    u_t = tf.constant(oracle.to_frequency(np.float64(z_t)), tf.float32)
    expected = oracle.to_pixel(np.float64(frequency_unet.network(u_t, t)))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(frequency_unet(z_t, t), expected, atol=1e-4)


def test_a_frequency_unet_has_the_variables_of_a_unet(frequency_unet):
    shapes = [v.shape for v in SMALL_UNET(image_shape=(8, 8, 3)).trainable_variables]
    assert [v.shape for v in frequency_unet.trainable_variables] == shapes
    assert len(shapes) > 50


def test_every_variable_of_a_frequency_unet_learns(frequency_unet):
    x, noise = draw(shape=(2, 8, 8, 3))
    denoiser = Denoiser(frequency_unet, BlurringProcess((8, 8, 3)))
    with tf.GradientTape() as tape:
        loss = PredictionMSE()(denoiser, x, tf.constant([0.2, 0.9]), noise)
    variables = [v.value for v in frequency_unet.trainable_variables]
    for variable, gradient in zip(variables, tape.gradient(loss, variables)):
        assert np.abs(gradient).max() > 0, variable.name
