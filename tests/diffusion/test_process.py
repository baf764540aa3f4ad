"""The process against the float64 oracle, and against what its distributions must satisfy."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from bdm_tf.diffusion import BlurringProcess, BlurSchedule, CosineSchedule, DiffusionLayer
from tests import oracle

TIMES = np.concatenate([np.linspace(0, 1, 401), [1e-3, 1e-4, 0.999, 0.9999]]).astype(np.float32)


def process(height, width, sigma_blur_max=20.0, delta=0.0, **blur):
    blur = BlurSchedule(sigma_blur_max=sigma_blur_max, **blur)
    return BlurringProcess((height, width, 1), blur=blur, delta=delta)


def test_noise_schedule_is_exact_to_1e_6():
    found = CosineSchedule().a_sigma(tf.constant(TIMES))
    for value, expected in zip(found, oracle.noise_scaling_cosine(TIMES.astype(np.float64))):
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("sigma_blur_max", [0.0, 1.0, 10.0, 20.0])
@pytest.mark.parametrize("height, width", [(8, 8), (32, 32), (32, 16)])
def test_alpha_and_posterior_agree_with_exact_bayes(height, width, sigma_blur_max, power):
    tested = process(height, width, sigma_blur_max, power=power)
    shape = (height, width, sigma_blur_max)
    alpha_t, sigma_t = tested.alpha_sigma(tf.constant(TIMES))
    expected = oracle.alpha_sigma(TIMES.astype(np.float64), *shape, power=power)
    np.testing.assert_allclose(alpha_t, expected[0], rtol=5e-6)
    np.testing.assert_allclose(sigma_t, expected[1], rtol=1e-6)
    k = np.array([1, 2, 3, 10, 100, 333, 500, 750, 900, 990, 999, 1000])
    s, t = ((k - 1) / 1000).astype(np.float32), (k / 1000).astype(np.float32)
    found = tested.denoising_distribution(s=tf.constant(s), t=tf.constant(t))
    expected = oracle.denoising_distribution(
        s.astype(np.float64), t.astype(np.float64), *shape, power=power
    )
    for value, exact in zip(found, expected):
        np.testing.assert_allclose(value, exact, rtol=1e-4)


def test_delta_reproduces_the_appendix():
    s, t = np.array([0.2, 0.5, 0.9], np.float32), np.array([0.21, 0.51, 0.91], np.float32)
    found = process(8, 8, delta=1e-8).denoising_distribution(s=tf.constant(s), t=tf.constant(t))
    s, t = s.astype(np.float64), t.astype(np.float64)
    term1, term2, sigma2 = oracle.appendix_coefficients(s, t, 8, 8, 20.0)
    alpha_t, _ = oracle.alpha_sigma(t, 8, 8, 20.0)
    for value, expected in zip(found, (term1, term2 * alpha_t, sigma2)):
        np.testing.assert_allclose(value, expected, rtol=1e-3)  # it is a form that cancels


def test_no_blur_is_exactly_denoising_diffusion():
    blur = BlurSchedule(sigma_blur_max=0.0)
    d_t = blur.frequency_scaling(tf.constant(TIMES)[:, None], tf.constant([0.0, 1.0, 9.0]))
    assert (d_t.numpy() == 1.0).all()
    s, t = tf.constant([0.3]), tf.constant([0.4])
    for coefficient in process(8, 8, 0.0).denoising_distribution(s=s, t=t):
        assert np.unique(coefficient).size == 1


def test_transition_after_s_gives_the_marginal_at_t():
    tested = process(8, 6)
    s, t = tf.constant([0.1, 0.5]), tf.constant([0.3, 0.51])
    alpha_ts, sigma2_ts = tested.transition(s=s, t=t)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = tested.alpha_sigma(s), tested.alpha_sigma(t)
    np.testing.assert_allclose(alpha_ts * alpha_s, alpha_t, rtol=1e-5)
    variance = alpha_ts**2 * sigma_s**2 + sigma2_ts
    np.testing.assert_allclose(variance, np.broadcast_to(sigma_t**2, variance.shape), rtol=1e-5)


def test_noise_and_image_coefficients_invert_each_other():
    tested, rng = process(8, 8), np.random.default_rng(0)
    u_x, u_eps = rng.normal(size=(2, 3, 8, 8, 1)).astype(np.float32)
    t = tf.constant([0.05, 0.4, 0.8])
    alpha_t, sigma_t = tested.alpha_sigma(t)
    u_t = alpha_t * u_x + sigma_t * u_eps
    np.testing.assert_allclose(tested.u_eps_from_u_x(u_t, u_x, t), u_eps, atol=1e-4)
    again = alpha_t * tested.u_x_from_u_eps(u_t, u_eps, t)
    np.testing.assert_allclose(again, alpha_t * u_x, atol=1e-5)


def test_diffused_samples_have_the_stated_mean_and_variance():
    tested, n = process(4, 6, 2.0), 20_000
    x = np.random.default_rng(1).normal(size=(1, 4, 6, 1)).astype(np.float32)
    eps = tf.random.stateless_normal([n, 4, 6, 1], [1, 2])
    t = tf.constant([0.6])
    z_t = tested.diffuse(tf.repeat(tf.constant(x), n, 0), tf.repeat(t, n), eps)
    u_t = tested.basis.to_frequency(z_t).numpy()
    alpha, sigma = oracle.alpha_sigma([np.float64(np.float32(0.6))], 4, 6, 2.0)
    mean = (alpha * oracle.to_frequency(x.astype(np.float64)))[0]
    assert (np.abs(u_t.mean(0) - mean) < 5 * sigma[0] / np.sqrt(n)).all()
    assert (np.abs(u_t.var(0) / sigma[0] ** 2 - 1) < 5 * np.sqrt(2 / n)).all()


def test_blur_is_the_gaussian_blur_of_its_scale():
    x = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 1)).astype(np.float32)
    blur = BlurSchedule(sigma_blur_max=3.0, min_scale=0.0)
    tested = BlurringProcess((32, 32, 1), blur=blur)
    d_t = blur.frequency_scaling(tf.ones([1, 1, 1, 1]), tested.basis.frequencies_squared(32, 32))
    blurred = tested.basis.to_pixel(d_t * tested.basis.to_frequency(x)).numpy()
    expected = scipy.ndimage.gaussian_filter(x[0, :, :, 0], 3.0, mode="reflect", truncate=8)
    np.testing.assert_allclose(blurred[0, :, :, 0], expected, atol=1e-5)


def test_layer_computes_in_float32_under_mixed_precision():
    tested, rng = process(8, 8), np.random.default_rng(0)
    x, eps = rng.normal(size=(2, 2, 8, 8, 1)).astype(np.float32)
    t = np.array([0.123456, 0.9], np.float32)
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        z_t = DiffusionLayer(tested)(tf.constant(x), tf.constant(t), tf.constant(eps))
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert z_t.dtype == tf.float32
    np.testing.assert_array_equal(z_t, tested.diffuse(tf.constant(x), t, tf.constant(eps)))


@pytest.mark.parametrize("min_scale", [0.0, 0.001])
@pytest.mark.parametrize("power", [1, 2])
def test_the_slope_of_log_snr_is_its_derivative(power, min_scale):
    t = np.array([1e-3, 0.1, 0.4, 0.7, 0.95])
    settings = dict(power=power, min_scale=min_scale)

    def logsnr(t):
        alpha, sigma = oracle.alpha_sigma(t, 8, 4, 2.0, **settings)
        return 2 * np.log(alpha / sigma)

    expected = (logsnr(t + 1e-6) - logsnr(t - 1e-6)) / 2e-6
    found = process(8, 4, 2.0, **settings).logsnr_slope(tf.constant(t, tf.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_importance_times_are_uniform_in_log_snr():
    places = np.linspace(0, 1, 9).astype(np.float32)
    t, density = process(8, 8).importance_times(tf.constant(places))
    t = t.numpy().astype(np.float64)

    def logsnr(t):
        a, sigma = oracle.noise_scaling_cosine(t)
        return 2 * np.log(a / sigma)

    np.testing.assert_allclose(logsnr(t), 10 - 20 * places, atol=2e-3)
    inner = t[1:-1]
    slope = (logsnr(inner + 1e-7) - logsnr(inner - 1e-7)) / 2e-7
    np.testing.assert_allclose(density[1:-1], -slope / 20, rtol=1e-4)
    s, t = (tf.constant(v) for v in ([0.0, 0.3, 0.8], [0.3, 0.8, 1.0]))
    parts = process(8, 8).importance_probability(s, t)
    np.testing.assert_allclose(parts[1], (logsnr(0.3) - logsnr(0.8)) / 20, rtol=1e-4)
    np.testing.assert_allclose(np.sum(parts), 1.0, rtol=1e-5)
