"""The times at which samplers look, against formulas in NumPy."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.diffusion.noise_schedules import CosineSchedule, GeometricNoise
from bdm_tf.parametrisations import PredictX
from bdm_tf.sampling import (
    AncestralSampler,
    DDIMSampler,
    FittedGrid,
    KarrasGrid,
    LogNormalGrid,
    LogSNRGrid,
    PowerGrid,
    UniformGrid,
)
from bdm_tf.spectrum import Spectrum
from bdm_tf.system.errors import UserError
from tests import oracle
from tests.toy_models import blurring, cold, draw, exploding, ihdm, relay

SHAPE, PLACES = (4, 4, 2), np.float32(np.arange(11) / 10)
FLAT = Spectrum(np.zeros(SHAPE), np.ones(SHAPE))
STEEP = Spectrum(
    np.zeros(SHAPE),
    np.broadcast_to(1.0 / (1.0 + 4 * np.add.outer(np.arange(4), np.arange(4)))[..., None], SHAPE),
)


class OwnCosine(CosineSchedule):
    """The same schedule, without its own inverse."""

    time_at = GeometricNoise.time_at


def times(grid, process=None, spectrum=STEEP):
    return grid.times(process or blurring(), tf.constant(PLACES), spectrum).numpy()


def log_ratio(t):
    a, sigma = oracle.noise_scaling_cosine(np.float64(t))
    return np.log(sigma / a)


EVERY = [UniformGrid(), PowerGrid(), PowerGrid(3.5), LogSNRGrid(), KarrasGrid(), FittedGrid()]


@pytest.mark.parametrize("grid", EVERY, ids=lambda g: type(g).__name__)
def test_every_grid_rises_from_0_to_1(grid):
    found = times(grid)
    assert found[0] == 0.0 and found[-1] == 1.0 and (np.diff(found) > 0).all()


def test_powers_are_powers_and_uniform_is_uniform():
    np.testing.assert_array_equal(times(UniformGrid()), PLACES)
    np.testing.assert_allclose(times(PowerGrid()), PLACES**2, rtol=1e-6)


def test_a_power_grid_that_ends_early_is_gddims_and_samples_begin_there():
    # Their times run evenly in the root of t from where sigma / a = 80, less what is below 1e-5.
    last = np.arctan(80.0) * 2 / np.pi * 1.008 - 0.004
    i = np.arange(11)
    expected = (np.sqrt(last) + (0.0 - np.sqrt(last)) * i / 10) ** 2
    np.testing.assert_allclose(times(PowerGrid(2.0, 0.99598))[::-1], expected, atol=5e-5)
    asked = []

    def network(z_t, t):
        asked.append(float(t[0]))
        return z_t

    denoiser = Denoiser(network, blurring(), parametrisation=PredictX())
    sampler = DDIMSampler(grid=PowerGrid(2.0, 0.99598))
    sampler(denoiser, shape=(1, *SHAPE), seed=[0, 7], num_steps=10)
    np.testing.assert_allclose(asked, expected[:-1], atol=5e-5)


@pytest.mark.parametrize("noise", [CosineSchedule(), OwnCosine()], ids=["closed form", "bisection"])
def test_log_snr_and_karras_grids_are_even_in_what_they_say(noise):
    process = BlurringProcess(SHAPE, noise=noise, blur=BlurSchedule(2.0))
    heights = log_ratio(times(LogSNRGrid(), process))
    np.testing.assert_allclose(np.diff(heights), 1.0, rtol=2e-3)  # from -5 to 5 in ten steps
    for rho in (1.0, 7.0):
        heights = np.exp(log_ratio(times(KarrasGrid(rho), process)) / rho)
        np.testing.assert_allclose(np.diff(heights), (heights[-1] - heights[0]) / 10, rtol=5e-3)


def test_edms_training_times_are_log_normal_in_sigma():
    sigma = 0.002 * 40_000.0 ** np.float64(times(LogNormalGrid(), exploding()))
    expected = np.exp(1.2 * scipy.stats.norm.ppf(np.float64(PLACES[1:-1])) - 1.2)
    np.testing.assert_allclose(sigma[1:-1], expected, rtol=2e-4)
    np.testing.assert_allclose(sigma[[0, -1]], [0.002, 80.0], rtol=1e-6)


def test_karras_grid_is_edms_for_edms_noise():
    sigma = 0.002 * 40_000.0 ** np.float64(times(KarrasGrid(), exploding()))[::-1]
    i = np.arange(11)
    edm = (80 ** (1 / 7) + i / 10 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7  # their Eq. 5
    np.testing.assert_allclose(sigma, edm, rtol=1e-3)


def angles(t, spectrum, sigma_blur):
    alpha, sigma = oracle.alpha_sigma(t, 4, 4, sigma_blur)
    return np.arctan2(sigma, alpha * np.sqrt(np.float64(spectrum.variance)))


def test_for_the_cosine_schedule_alone_and_variance_1_even_angles_are_even_times():
    np.testing.assert_allclose(times(FittedGrid(), blurring(0.0), FLAT), PLACES, atol=2e-5)


@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("sigma_blur", [0.0, 2.0, 20.0])
def test_a_fitted_grid_cuts_the_curve_of_angles_into_equal_parts(sigma_blur, power):
    found = times(FittedGrid(power), blurring(sigma_blur))
    weight = np.float64(STEEP.variance) ** power
    lengths = []
    for low, high in zip(found[:-1], found[1:]):
        curve = angles(np.linspace(np.float64(low), high, 400), STEEP, sigma_blur)
        steps = np.einsum("thwc,hwc->t", np.diff(curve, axis=0) ** 2, weight)
        lengths.append(np.sqrt(steps).sum())
    np.testing.assert_allclose(lengths, np.mean(lengths), rtol=0.02)


def test_a_step_of_ddim_shrinks_gaussian_data_by_the_cosine_of_the_angle_it_takes():
    process, (z, _) = blurring(), draw()

    def network(z_t, t):  # E[x | z_t]
        alpha, sigma = process.alpha_sigma(t)
        gain = alpha * STEEP.variance / (alpha**2 * STEEP.variance + sigma**2)
        return process.basis.to_pixel(gain * process.basis.to_frequency(z_t))

    denoiser = Denoiser(network, process, parametrisation=PredictX())
    t, s = 0.45, 0.3
    u_s, _ = DDIMSampler().step(
        denoiser,
        z,
        t=tf.constant(t),
        s=tf.constant(s),
        noise=tf.zeros_like(z),
        is_last=tf.constant(False),
        memory=(),
    )

    def deviation(time):
        alpha, sigma = oracle.alpha_sigma([time], 4, 4, 2.0)
        return np.sqrt(alpha**2 * np.float64(STEEP.variance) + sigma**2)

    kept = np.cos(angles([t], STEEP, 2.0) - angles([s], STEEP, 2.0))
    u_t = oracle.to_frequency(np.float64(z))
    np.testing.assert_allclose(u_s, kept * u_t / deviation(t) * deviation(s), atol=2e-5)


def test_what_never_varies_does_not_count():
    variance = np.array(STEEP.variance)
    variance[2:] = 0.0
    part = Spectrum(STEEP.mean, variance)
    for power in (0.0, 1.0):
        assert (np.diff(times(FittedGrid(power), spectrum=part)) > 0).all()
    none = Spectrum(np.zeros(SHAPE), np.zeros(SHAPE))
    with pytest.raises(UserError, match="images are all the same"):
        times(FittedGrid(), spectrum=none)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: PowerGrid(0.0), "power=0.0 must be a number at least 0.1, at most 10"),
        (lambda: PowerGrid(2.0, 1.5), "last=1.5 must be a number at least 0.1, at most 1"),
        (lambda: PowerGrid(200), "power=200 must be a number at least 0.1, at most 10"),
        (lambda: KarrasGrid(float("inf")), "rho=inf must be a number at least 1, at most 100"),
        (lambda: LogNormalGrid(log_std=0.0), "log_std=0.0 must be a number at least 0.1"),
        (lambda: FittedGrid(-0.5), "FittedGrid.power=-0.5 must be a number at least 0"),
        (lambda: FittedGrid(float("nan")), "FittedGrid.power=nan must be a number at least 0"),
        (lambda: times(FittedGrid(), spectrum=None), "FittedGrid needs the mean and variance"),
        (lambda: PowerGrid().check(ihdm()), "PowerGrid is for .* continuous time.* 10 steps"),
        (lambda: PowerGrid(1.0, 0.9).check(exploding()), "PowerGrid.last=0.9: .*a tenth of the"),
        (lambda: PowerGrid(1.0, 0.9).check(blurring()), "last=0.9: .*give a later one, up to 1.0"),
        (lambda: PowerGrid(1.0, 0.9).check(relay()), "PowerGrid.last=0.9: samples begin there"),
        (lambda: FittedGrid().check(ihdm()), "FittedGrid is for .* continuous time.* 10 steps"),
        (lambda: FittedGrid().check(cold()), "FittedGrid goes by noise, but sigma_t is 0"),
        (lambda: LogSNRGrid().check(_constant_noise()), "LogSNRGrid goes by the noise, which does"),
    ],
)
def test_grids_that_cannot_be_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def _constant_noise():
    from bdm_tf.diffusion.noise_schedules import ConstantNoise

    return BlurringProcess(SHAPE, noise=ConstantNoise(0.02), blur=BlurSchedule(2.0))


def test_a_sampler_refuses_a_grid_that_its_model_does_not_have():
    denoiser = Denoiser(lambda z, t: z, ihdm(), parametrisation=PredictX())
    with pytest.raises(UserError, match="KarrasGrid is for processes in continuous time"):
        AncestralSampler(grid=KarrasGrid()).check(denoiser)
    AncestralSampler(grid=UniformGrid()).check(denoiser)
