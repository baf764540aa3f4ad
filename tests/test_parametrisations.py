"""What networks predict, against formulas in NumPy."""

import numpy as np
import pytest

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.diffusion.bases import PixelBasis
from bdm_tf.diffusion.blur_schedules import BlurSchedule
from bdm_tf.diffusion.noise_schedules import GeometricNoise
from bdm_tf.objectives import PredictionMSE
from bdm_tf.parametrisations import (
    PredictEDM,
    PredictEps,
    PredictPreconditioned,
    PredictStep,
    PredictV,
)
from bdm_tf.spectrum import Spectrum
from bdm_tf.system.errors import UserError
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
def test_a_perfect_answer_gives_back_the_noise_and_the_image(process, parametrisation):
    x, noise = draw()
    eps = process.basis.noise(noise)
    z_t = process.diffuse(x, TIMES, eps)
    denoiser = answering(parametrisation, process, x=x, eps=eps, t=TIMES)
    u_eps, u_x = denoiser(z_t, TIMES)
    np.testing.assert_allclose(u_eps, process.basis.to_frequency(eps), atol=2e-4)
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


# --- preconditioned -------------------------------------------------------------------------------

SHAPE = (4, 4, 2)


def flat(sigma_data):
    return Spectrum(np.zeros(SHAPE), np.full(SHAPE, sigma_data**2))


@pytest.mark.parametrize("parametrisation", [PredictPreconditioned(True), PredictEDM(0.5)])
def test_with_one_variance_and_no_blur_it_is_edms_preconditioning(parametrisation):
    # a_t = 1 and sigma_t from 0.002 to 80: Karras et al. (2022), Table 1.
    noise = GeometricNoise(0.002, 80.0)
    process = BlurringProcess(SHAPE, noise=noise, blur=BlurSchedule(0.0))
    sigma_data = 0.5
    x, eps = (np.float64(v) for v in draw())
    t = np.float32([0.05, 0.4, 0.6, 0.9])
    sigma = (0.002 * 40_000.0 ** np.float64(t))[:, None, None, None]
    z = x + sigma * eps
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / np.sqrt(sigma**2 + sigma_data**2)
    c_in = 1.0 / np.sqrt(sigma**2 + sigma_data**2)
    shown = []

    def network(seen, t):
        shown.append(seen.numpy())
        return small_network(seen, t)

    denoiser = Denoiser(
        network, process, parametrisation=parametrisation, spectrum=flat(sigma_data)
    )
    u_eps, u_x = denoiser(np.float32(z), t)
    np.testing.assert_allclose(shown[0], c_in * z, rtol=1e-5, atol=1e-6)
    answer = np.float64(small_network(np.float32(c_in * z), t))
    d = c_skip * z + c_out * answer  # Eq. 7
    np.testing.assert_allclose(process.basis.to_pixel(u_x), d, atol=5e-6 * np.abs(d).max())
    eps_hat = (z - d) / sigma
    found = process.basis.to_pixel(u_eps)
    np.testing.assert_allclose(found, eps_hat, rtol=2e-3, atol=2e-3)
    target = denoiser.target(x=np.float32(x), eps=np.float32(eps), z_t=np.float32(z), t=t)
    np.testing.assert_allclose(target, (x - c_skip * z) / c_out, rtol=2e-3, atol=2e-3)
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    loss = PredictionMSE()(denoiser, np.float32(x), t, np.float32(eps))
    np.testing.assert_allclose(loss, (weight * (d - x) ** 2).mean((1, 2, 3)), rtol=2e-3)


@pytest.mark.parametrize("scale_input", [False, True])
def test_the_target_has_mean_0_and_variance_1_at_every_frequency_and_time(scale_input):
    rng, n = np.random.default_rng(0), 20_000
    mean, variance = rng.normal(size=SHAPE), rng.uniform(1e-4, 4.0, SHAPE)
    process, spectrum = blurring(), Spectrum(mean, variance)
    u = np.float32(mean + np.sqrt(variance) * rng.normal(size=(n, *SHAPE)))
    x, eps = process.basis.to_pixel(u), np.float32(rng.normal(size=(n, *SHAPE)))
    for time in TIMES:
        t = np.full(n, time, np.float32)
        z_t = process.diffuse(x, t, eps)
        parametrisation = PredictPreconditioned(scale_input)
        given = dict(x=x, eps=eps, z_t=z_t, t=t, spectrum=spectrum)
        target = process.basis.to_frequency(parametrisation.target(process, **given)).numpy()
        assert (np.abs(target.mean(0)) < 5 / np.sqrt(n)).all()
        assert (np.abs(target.var(0) - 1.0) < 5 * np.sqrt(2 / n)).all()
        seen = parametrisation.network_input(process, z_t, t, spectrum)
        seen = process.basis.to_frequency(seen).numpy()
        assert (np.abs(seen.var(0) - 1.0) < 5 * np.sqrt(2 / n)).all() == scale_input


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_a_perfect_preconditioned_answer_gives_back_the_noise_and_the_image(process):
    rng = np.random.default_rng(1)
    spectrum = Spectrum(rng.normal(size=SHAPE) * 0.1, rng.uniform(0.05, 1.0, SHAPE))
    x, noise = draw()
    eps = process.basis.noise(noise)
    z_t = process.diffuse(x, TIMES, eps)
    parametrisation = PredictPreconditioned()

    def network(z_t, t):
        return parametrisation.target(process, x=x, eps=eps, z_t=z_t, t=t, spectrum=spectrum)

    denoiser = Denoiser(network, process, parametrisation=parametrisation, spectrum=spectrum)
    u_eps, u_x = denoiser(z_t, TIMES)
    np.testing.assert_allclose(u_eps, process.basis.to_frequency(eps), atol=1e-4)
    np.testing.assert_allclose(u_x, process.basis.to_frequency(x), atol=1e-4)


def test_an_error_counts_for_at_most_the_images_deviation():
    rng = np.random.default_rng(2)
    variance = rng.uniform(1e-4, 1.0, SHAPE)
    spectrum, process = Spectrum(np.zeros(SHAPE), variance), blurring()
    z_t, t = draw()[1], np.float32([0.2, 0.5, 0.9, 1.0])
    u_t, u_f = process.basis.to_frequency(z_t), np.float32(rng.normal(size=(4, *SHAPE)))

    def u_x(u_f):
        given = dict(u_f=u_f, u_t=u_t, t=t, spectrum=spectrum)
        return PredictPreconditioned().coefficients(process, **given)[1].numpy()

    moved = np.abs(u_x(u_f + 1.0) - u_x(u_f))
    assert (moved <= np.sqrt(variance) * 1.001).all()


def test_a_coefficient_that_never_varies_is_its_mean_whatever_the_network_says():
    variance = np.ones(SHAPE)
    variance[2, 1] = 0.0
    mean = np.full(SHAPE, 0.25)
    denoiser = Denoiser(
        lambda z, t: 7.0 * z,
        blurring(),
        parametrisation=PredictPreconditioned(),
        spectrum=Spectrum(mean, variance),
    )
    u_eps, u_x = denoiser(draw()[1], TIMES)
    np.testing.assert_allclose(u_x[:, 2, 1], 0.25, rtol=1e-6)
    assert np.isfinite(u_eps).all()
    x = blurring().basis.to_pixel(np.float32(np.full((4, *SHAPE), 0.25)))
    target = denoiser.target(x=x, eps=draw()[1], z_t=None, t=TIMES)
    np.testing.assert_array_equal(
        blurring().basis.to_frequency(target)[:, 2, 1].numpy().round(6), 0
    )


def test_edms_preconditioning_needs_noise_and_images_that_keep_their_scale():
    with pytest.raises(UserError, match="PredictEDM needs noise.* sigma_t is 0: choose PredictX"):
        PredictEDM().check(cold())
    with pytest.raises(UserError, match="a_t = 1.*GeometricNoise.*PredictPreconditioned"):
        PredictEDM().check(blurring())
    with pytest.raises(UserError, match=r"sigma_data=0.0 must be a number above 0"):
        PredictEDM(0.0)


def test_preconditioning_needs_noise_and_a_spectrum():
    with pytest.raises(UserError, match="sigma_t is 0: choose PredictX"):
        PredictPreconditioned().check(cold())
    with pytest.raises(UserError, match="PredictPreconditioned needs the mean and variance"):
        Denoiser(lambda z, t: z, blurring(), parametrisation=PredictPreconditioned())(
            draw()[1], TIMES
        )
