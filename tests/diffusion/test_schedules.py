"""The schedules of Table 1's models against float64 formulas and SciPy's Gaussian blurs."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from bdm_tf.diffusion import BlurringProcess
from bdm_tf.diffusion.bases import DCT
from bdm_tf.diffusion.blur_schedules import BlurSchedule, CumulativeBlur, LogBlur
from bdm_tf.diffusion.noise_schedules import ConstantNoise, CosineSchedule, GeometricNoise
from bdm_tf.diffusion.warm import BlurByNoise

K = 200
GAPS = np.array([1 / 4000, 1 / 1000, 1 / 200, 1 / 50, 0.1, 0.3, 0.6, 0.9, 1.0])


def ihdm_sigmas(lowest=0.5, highest=24.0, steps=K):
    """sigma_B of steps 0 ... K as the original code lists them."""
    return np.concatenate([[0.0], np.exp(np.linspace(np.log(lowest), np.log(highest), steps))])


def log_blur_tau(t, lowest, highest, steps=None):
    start = float(np.float32(1.0 / steps)) if steps else 0.0  # where float32 has its first step
    grown = lowest * (highest / lowest) ** ((t - start) / (1.0 - start))
    line = lowest * t / start if steps else grown
    return np.where(t < start, line, grown) ** 2 / 2


def cumulative_tau(t, first, increment, steps):
    """The sum of the first n squares, in closed form, where n = K t need not be whole."""
    n = steps * t
    ones, i, i2 = n, n * (n - 1) / 2, (n - 1) * n * (2 * n - 1) / 6
    return (first**2 * ones + 2 * first * increment * i + increment**2 * i2) / 2


def warm_tau(t, ratio, lowest, highest):
    return (ratio * lowest * (highest / lowest) ** t) ** 2 / 2


def sine_tau(t, sigma, power):
    return (sigma * np.sin(t * np.pi / 2) ** power) ** 2 / 2


SCHEDULES = {
    "paper": (BlurSchedule(20.0), lambda t: sine_tau(t, 20.0, 2)),
    "paper, sin": (BlurSchedule(20.0, power=1), lambda t: sine_tau(t, 20.0, 1)),
    "IHDM": (LogBlur(0.5, 24.0, K), lambda t: log_blur_tau(t, 0.5, 24.0, K)),
    "Soft": (LogBlur(0.01, 23.0), lambda t: log_blur_tau(t, 0.01, 23.0)),
    "Cold": (CumulativeBlur(), lambda t: cumulative_tau(t, 0.35, 0.01, 50)),
    "Warm": (BlurByNoise(GeometricNoise(0.01, 8.0), 0.5), lambda t: warm_tau(t, 0.5, 0.01, 8.0)),
}
EACH_SCHEDULE = pytest.mark.parametrize("schedule, tau", SCHEDULES.values(), ids=SCHEDULES)


def blurred(blur, x, t):
    """An image `[H, W]`, blurred as at time t and nothing else."""
    process = BlurringProcess((*x.shape, 1), noise=ConstantNoise(0.0), blur=blur)
    x = tf.constant(x[None, :, :, None], tf.float32)
    return process.diffuse(x, tf.constant([t], tf.float32), tf.zeros_like(x)).numpy()[0, :, :, 0]


def image(side=32):
    return np.random.default_rng(0).uniform(-1, 1, (side, side))


def scipy_blur(x, sigma):
    """A sampled Gaussian's blur: that of its name to 1e-7 from sigma = 1.8 on, a little less below.

    Sampling folds the frequencies above pi back, the largest of them with `exp(-(pi sigma)^2 / 2)`.
    """
    return scipy.ndimage.gaussian_filter(x, sigma, mode="reflect", truncate=8)


def test_the_steps_of_log_blur_are_those_of_ihdm():
    times = np.arange(K + 1) / K
    found = LogBlur(0.5, 24.0, K).sigma_blur(tf.constant(times, tf.float32))
    np.testing.assert_allclose(found, ihdm_sigmas(), rtol=2e-6)
    assert found[0] == 0.0  # no blur, not a little


def test_log_blur_without_steps_is_geometric_from_the_start():
    times = np.linspace(0, 1, 101)
    found = LogBlur(0.01, 23.0).sigma_blur(tf.constant(times, tf.float32))
    np.testing.assert_allclose(found, np.geomspace(0.01, 23.0, 101), rtol=2e-6)


def test_the_variances_of_colds_blurs_add_up():
    widths = 0.35 + 0.01 * np.arange(50)
    expected = np.concatenate([[0.0], np.cumsum(widths**2)])
    blur = CumulativeBlur(first=0.35, increment=0.01, num_steps=50)
    found = blur.sigma_blur(tf.constant(np.arange(51) / 50, tf.float32)).numpy()
    np.testing.assert_allclose(found**2, expected, rtol=2e-6)
    assert abs(found[-1] - 4.33) < 0.005


@pytest.mark.parametrize("s", [1, 3, 6])
def test_cumulative_blur_is_that_many_gaussian_blurs_one_after_another(s):
    x = image()
    expected = x
    for i in range(s):
        expected = scipy_blur(expected, 2.0 + 0.1 * i)
    found = blurred(CumulativeBlur(first=2.0, increment=0.1, num_steps=6), x, s / 6)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_colds_own_kernels_are_a_little_narrower_than_their_names_say():
    impulse, x, expected, variance = np.zeros(65), image(), image(), 0.0
    impulse[32] = 1.0
    for i in range(50):
        width = 0.35 + 0.01 * i
        kernel = scipy.ndimage.gaussian_filter1d(impulse, width, truncate=8)
        variance += np.sum(kernel * (np.arange(65) - 32.0) ** 2)
        expected = scipy_blur(expected, width)
    assert abs(np.sqrt(variance) - 4.18) < 0.01  # a kernel of std 0.35 has one of 0.18
    # One Gaussian as wide as the kernels really are is their product: what is left are their
    # higher moments, which fifty convolutions have evened out.
    same_width = blurred(LogBlur(0.1, np.sqrt(variance)), x, 1.0)
    np.testing.assert_allclose(same_width, expected, atol=1e-3)
    # By name 4.33 px, 7% more variance, which takes another 3% to 10% of the low frequencies that
    # are left of white noise: for this image, 0.006 at most.
    by_name = blurred(CumulativeBlur(), x, 1.0)
    assert 2e-3 < np.abs(by_name - expected).max() < 1e-2


@pytest.mark.parametrize("k", [70, 120, 200])
def test_the_steps_of_ihdm_are_single_gaussian_blurs(k):
    x, sigma = image(), ihdm_sigmas()[k]
    assert sigma > 1.8
    found = blurred(LogBlur(0.5, 24.0, K), x, k / K)
    np.testing.assert_allclose(found, scipy_blur(x, sigma), atol=2e-5)


@EACH_SCHEDULE
def test_elapsed_is_the_difference_of_dissipation_times(schedule, tau):
    s = np.linspace(0, 1 - 1 / 4000, 997).astype(np.float32)
    for gap in GAPS:  # the kink at 1/K lies inside many of them
        t = np.minimum(s + np.float32(gap), np.float32(1.0))
        expected = tau(t.astype(np.float64)) - tau(s.astype(np.float64))
        np.testing.assert_allclose(schedule.elapsed(s, t), expected, rtol=1e-5)
        np.testing.assert_allclose(schedule.dissipation_time(t), tau(np.float64(t)), rtol=1e-5)


def test_elapsed_is_accurate_across_the_kink_of_log_blur():
    schedule, tau = SCHEDULES["IHDM"]
    s = np.linspace(0.0, 1 / K, 1001).astype(np.float32)
    t = s + np.float32(1 / 4000)
    assert ((s < 1 / K) & (t > 1 / K)).sum() > 40
    expected = tau(t.astype(np.float64)) - tau(s.astype(np.float64))
    np.testing.assert_allclose(schedule.elapsed(s, t), expected, rtol=1e-5)
    before, after = schedule.elapsed(s, 0 * s + 1 / K), schedule.elapsed(0 * s + 1 / K, t + 1 / K)
    np.testing.assert_allclose(before + after, schedule.elapsed(s, t + 1 / K), rtol=1e-5)


@EACH_SCHEDULE
def test_the_slope_is_the_derivative_of_dissipation_time(schedule, tau):
    few = [0.001, 0.004, 0.006, 0.999, 0.9999]
    t = np.concatenate([few, np.linspace(0.01, 0.99, 99)]).astype(np.float32)
    wide, step = t.astype(np.float64), 1e-6
    expected = (tau(wide + step) - tau(wide - step)) / (2 * step)
    np.testing.assert_allclose(schedule.dissipation_time_slope(t), expected, rtol=1e-5)


def test_at_its_kink_the_slope_of_log_blur_is_that_from_the_right():
    schedule, tau = SCHEDULES["IHDM"]
    right = (tau(1 / K + 1e-7) - tau(1 / K)) / 1e-7
    left = (tau(1 / K) - tau(1 / K - 1e-7)) / 1e-7
    assert left > 10 * right
    found = schedule.dissipation_time_slope(tf.constant([1 / K]))
    np.testing.assert_allclose(found, [right], rtol=1e-5)


MINIMA = {
    "paper": (BlurSchedule(20.0, 0.001), lambda t: sine_tau(t, 20.0, 2), 0.001),
    "paper, d_min 1e-5": (BlurSchedule(20.0, 1e-5), lambda t: sine_tau(t, 20.0, 2), 1e-5),
    "paper, no d_min": (BlurSchedule(20.0, 0.0), lambda t: sine_tau(t, 20.0, 2), 0.0),
    "IHDM, d_min": (
        LogBlur(0.5, 24.0, K, min_scale=0.001),
        lambda t: log_blur_tau(t, 0.5, 24.0, K),
        0.001,
    ),
    "IHDM": (LogBlur(0.5, 24.0, K), lambda t: log_blur_tau(t, 0.5, 24.0, K), 0.0),
    "Cold": (CumulativeBlur(), lambda t: cumulative_tau(t, 0.35, 0.01, 50), 0.0),
    "Warm": (
        BlurByNoise(GeometricNoise(0.01, 8.0), 0.5),
        lambda t: warm_tau(t, 0.5, 0.01, 8.0),
        0.0,
    ),
}


def pairs():
    """Times s < t as float32, `[n, 1, 1, 1]`."""
    s, gap = np.meshgrid(np.linspace(0, 1 - GAPS[0], 81), GAPS)
    s, t = s.astype(np.float32), (s + gap).astype(np.float32)
    fits = t <= 1
    return s[fits][:, None, None, None], t[fits][:, None, None, None]


def log_scaling(tau, min_scale, t):
    """log d_t of 32x32 pixels in float64, also where d_t would underflow."""
    n = np.pi * np.arange(32) / 32
    exponent = -(n[:, None, None] ** 2 + n[:, None] ** 2) * tau(t.astype(np.float64))
    if min_scale == 0:
        return exponent
    return np.logaddexp(exponent + np.log1p(-min_scale), np.log(min_scale))


@pytest.mark.parametrize("schedule, tau, min_scale", MINIMA.values(), ids=MINIMA)
def test_log_scaling_differences_keep_their_digits(schedule, tau, min_scale):
    s, t = pairs()
    lambdas = DCT().frequencies_squared(32, 32)
    expected = log_scaling(tau, min_scale, t) - log_scaling(tau, min_scale, s)
    found = schedule.log_scaling_difference(s, t, lambdas)
    # Changes of d_t by less than a billionth are rounding of d_min's neighbourhood.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
    if min_scale:
        assert expected.min() < 0.95 * np.log(min_scale)  # d_t / d_s near its least


@pytest.mark.parametrize("schedule, tau, min_scale", MINIMA.values(), ids=MINIMA)
def test_log_snr_differences_keep_their_digits(schedule, tau, min_scale):
    noises = {
        CosineSchedule(): lambda t: -2 * np.log(np.tan(cosine_angle(t))),
        ConstantNoise(0.02): lambda t: -2 * np.log(0.02) + 0 * t,
        GeometricNoise(0.01, 0.1): lambda t: -2 * (np.log(0.01) + np.log(10.0) * t),
    }
    if isinstance(schedule, BlurByNoise):  # goes with its own noise alone
        noises = {GeometricNoise(0.01, 8.0): lambda t: -2 * (np.log(0.01) + np.log(800.0) * t)}
    s, t = pairs()
    for noise, logsnr in noises.items():
        process = BlurringProcess((32, 32, 1), noise=noise, blur=schedule)

        def total(t, logsnr=logsnr):
            return logsnr(t.astype(np.float64)) + 2 * log_scaling(tau, min_scale, t)

        found = process.logsnr_difference(s[:, 0, 0, 0], t[:, 0, 0, 0])
        np.testing.assert_allclose(found, total(t) - total(s), rtol=1e-5, atol=2e-9)
        assert (found.numpy() <= 0).all()


def cosine_angle(t):
    first, last = np.arctan(np.exp(-5.0)), np.arctan(np.exp(5.0))
    return first + (last - first) * t


def test_geometric_noise_grows_by_equal_factors():
    noise, t = GeometricNoise(0.01, 0.1), np.linspace(0, 1, 51).astype(np.float32)
    a_t, sigma_t = noise.a_sigma(tf.constant(t))
    assert (a_t.numpy() == 1).all()
    np.testing.assert_allclose(sigma_t, np.geomspace(0.01, 0.1, 51), rtol=2e-6)
    s, t = (v[:, 0, 0, 0] for v in pairs())
    exact = -2 * np.log(10.0) * (t.astype(np.float64) - s.astype(np.float64))
    np.testing.assert_allclose(noise.logsnr_difference(s, t), exact, rtol=1e-6)
    np.testing.assert_allclose(noise.logsnr_slope(t), np.full_like(t, -2 * np.log(10.0)), rtol=1e-6)


def test_constant_noise_is_the_same_at_all_times():
    noise, t = ConstantNoise(0.02), tf.linspace(0.0, 1.0, 11)
    a_t, sigma_t = noise.a_sigma(t)
    assert (a_t.numpy() == 1).all() and (sigma_t.numpy() == np.float32(0.02)).all()
    assert not np.any(noise.logsnr_difference(0 * t, t)) and not np.any(noise.logsnr_slope(t))
    assert noise.logsnr_slope(t).shape == t.shape
    assert not noise.is_zero and ConstantNoise(0.0).is_zero


@pytest.mark.parametrize("noise", [GeometricNoise(0.01, 0.1), ConstantNoise(0.02)])
def test_without_a_better_way_importance_is_uniform(noise):
    places = tf.constant([0.0, 0.25, 0.9])
    t, density = noise.importance_times(places)
    np.testing.assert_array_equal(t, places)
    np.testing.assert_array_equal(density, [1, 1, 1])
    found = noise.importance_probability(tf.constant([0.0, 0.5]), tf.constant([0.25, 1.0]))
    np.testing.assert_array_equal(found, [0.25, 0.5])


def test_only_blurs_in_steps_have_a_number_of_them():
    assert LogBlur(num_steps=200).num_steps == 200 and CumulativeBlur(num_steps=7).num_steps == 7
    assert LogBlur().num_steps is None and BlurSchedule().num_steps is None
    assert BlurringProcess((8, 8, 1), blur=LogBlur(num_steps=9)).num_steps == 9


def test_times_on_the_grid_are_those_of_the_steps_equally_often():
    process = BlurringProcess((8, 8, 1), blur=LogBlur(num_steps=50))
    even = (np.arange(5000) + 0.5) / 5000
    found = process.on_grid(tf.constant(even, tf.float32))
    steps, counts = np.unique(found, return_counts=True)
    np.testing.assert_array_equal(steps, np.arange(1, 51, dtype=np.float32) / np.float32(50))
    assert (counts == 100).all()
    np.testing.assert_allclose(process.on_grid(tf.constant([0.0, 1.0])), [1 / 50, 1.0])
    free = BlurringProcess((8, 8, 1)).on_grid(tf.constant([0.0, 0.123]))
    np.testing.assert_array_equal(free, np.float32([0.0, 0.123]))


@pytest.mark.parametrize(
    "schedule, arguments, words",
    [
        (LogBlur, dict(sigma_blur_min=0.0), "sigma_blur_min=0.0"),
        (LogBlur, dict(sigma_blur_min=3.0, sigma_blur_max=2.0), "sigma_blur_max=2.0"),
        (LogBlur, dict(num_steps=1), "LogBlur.num_steps=1 must be .* at least 2"),
        (LogBlur, dict(min_scale=1.0), "min_scale=1.0"),
        (CumulativeBlur, dict(first=0.0), "first=0.0"),
        (CumulativeBlur, dict(increment=-0.1), "increment=-0.1"),
        (CumulativeBlur, dict(num_steps=0), "CumulativeBlur.num_steps=0 must be .* at least 1"),
        (CumulativeBlur, dict(min_scale=-0.1), "min_scale=-0.1"),
        (ConstantNoise, dict(sigma=-0.02), "sigma=-0.02"),
        (GeometricNoise, dict(sigma_min=0.0), "sigma_min=0.0"),
        (GeometricNoise, dict(sigma_min=0.2, sigma_max=0.1), "sigma_max=0.1"),
    ],
)
def test_wrong_arguments_are_named(schedule, arguments, words):
    with pytest.raises(ValueError, match=words):
        schedule(**arguments)
