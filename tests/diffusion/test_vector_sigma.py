"""A sigma_t for each frequency (Eq. 19), from drawing z_t to sampling and likelihood.

Two processes have one: the paper's own with each frequency rescaled, which must change nothing
(section 3), and one whose noise schedule is written here, against closed forms in float64.
"""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.diffusion.blur_schedules import LogBlur
from bdm_tf.diffusion.noise_schedules import ConstantNoise, CosineSchedule, NoiseSchedule
from bdm_tf.likelihood import low_discrepancy, reconstruction_term, variational_bound
from bdm_tf.objectives import PredictionMSE, VariationalLoss
from bdm_tf.parametrisations import PredictEps, PredictV, PredictX
from bdm_tf.priors import BlurredImages, GaussianPrior, StandardNormal
from bdm_tf.sampling import AncestralSampler, DDIMSampler
from tests import oracle

H, W = 4, 6


def spectrum(height=H, width=W):
    i, j = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return (1.0 / (1.0 + i**2 + j**2))[None, :, :, None]


def bayes(alpha_s, sigma_s, alpha_t, sigma_t):
    """Eq. 17 and 18 in float64: the coefficients of u_t and u_x, and the variance."""
    alpha_ts = alpha_t / alpha_s
    sigma2_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
    sigma2 = 1.0 / (1.0 / sigma_s**2 + alpha_ts**2 / sigma2_ts)
    return sigma2 * alpha_ts / sigma2_ts, sigma2 * alpha_s / sigma_s**2, sigma2


def diffused(x, eps, alpha, sigma):
    """Eq. 28 with whole matrices: `V (alpha V^T x + sigma V^T eps)` of one image `[H, W, 1]`."""
    matrix = np.kron(oracle.dct_matrix(x.shape[0]), oracle.dct_matrix(x.shape[1]))  # V^T
    u = alpha.ravel() * (matrix @ x.ravel()) + sigma.ravel() * (matrix @ eps.ravel())
    return (matrix.T @ u).reshape(x.shape)


def optimal(process, parametrisation, prior=None, variance=None):
    """The best denoiser for images whose coefficients are N(0, variance)."""
    variance = np.float32(spectrum(*process.image_shape[:2]) if variance is None else variance)

    def network(z_t, t):
        u_t = process.basis.to_frequency(z_t)
        alpha, sigma = process.alpha_sigma(t)
        total = alpha**2 * variance + sigma**2
        u_x, u_eps = alpha * variance / total * u_t, sigma / total * u_t
        v = (alpha * u_eps - sigma * u_x) / tf.sqrt(alpha**2 + sigma**2)
        answers = {PredictX: u_x, PredictEps: u_eps, PredictV: v}
        return process.basis.to_pixel(answers[type(parametrisation)])

    return Denoiser(network, process, parametrisation=parametrisation, prior=prior)


# --- the same process in two scalings -------------------------------------------------------------


def blurring(variance_preserving, height=H, width=W):
    return BlurringProcess(
        (height, width, 1),
        noise=CosineSchedule(),
        blur=BlurSchedule(2.0),
        variance_preserving=variance_preserving,
    )


def ihdm(variance_preserving, height=H, width=W):
    return BlurringProcess(
        (height, width, 1),
        noise=ConstantNoise(0.02),
        blur=LogBlur(0.5, 3.0, num_steps=20),
        variance_preserving=variance_preserving,
    )


PROCESSES = pytest.mark.parametrize("process", [blurring, ihdm])
TIMES = np.float32([0.03, 0.2, 0.5, 0.8, 1.0])


def rescaled(t):
    """alpha_t and sigma_t of `blurring(True)` in float64."""
    alpha, sigma = oracle.alpha_sigma(np.float64(np.float32(t)), H, W, 2.0)
    length = np.sqrt(alpha**2 + sigma**2)
    return alpha / length, sigma / length


@PROCESSES
def test_variance_preserving_keeps_every_frequencys_variance_and_snr(process):
    plain, preserving = process(False), process(True)
    assert plain.alpha_sigma(TIMES)[1].shape == (5, 1, 1, 1)
    alpha, sigma = (v.numpy() for v in preserving.alpha_sigma(TIMES))
    assert sigma.shape == (5, H, W, 1)
    assert np.ptp(sigma[1]) > 0.05  # frequencies really have their own
    np.testing.assert_allclose(alpha**2 + sigma**2, np.ones_like(alpha), rtol=1e-6)
    alpha_0, sigma_0 = plain.alpha_sigma(TIMES)
    np.testing.assert_allclose(alpha / sigma, alpha_0 / sigma_0, rtol=2e-6)
    s = TIMES - np.float32(0.02)
    for name in ("logsnr_difference", "logsnr_slope"):
        arguments = (s, TIMES) if name == "logsnr_difference" else (TIMES,)
        found, expected = (getattr(p, name)(*arguments) for p in (preserving, plain))
        np.testing.assert_array_equal(found, expected)


def test_a_rescaled_draw_is_the_dense_formula():
    rng = np.random.default_rng(0)
    x, eps = rng.uniform(-1, 1, (2, 5, H, W, 1))
    alpha, sigma = rescaled(TIMES)
    expected = [diffused(*values) for values in zip(x, eps, alpha, sigma)]
    found = blurring(True).diffuse(tf.constant(x, tf.float32), TIMES, tf.constant(eps, tf.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_rescaled_posterior_and_transition_are_exact_bayes():
    s, t = TIMES - np.float32(0.02), TIMES
    (alpha_s, sigma_s), (alpha_t, sigma_t) = rescaled(s), rescaled(t)
    found = blurring(True).denoising_distribution(s=s, t=t)
    for value, exact in zip(found, bayes(alpha_s, sigma_s, alpha_t, sigma_t)):
        np.testing.assert_allclose(value, exact, rtol=1e-4)
    alpha_ts, sigma2_ts = blurring(True).transition(s=s, t=t)
    ratio = alpha_t / alpha_s
    np.testing.assert_allclose(alpha_ts, ratio, rtol=1e-4)
    np.testing.assert_allclose(sigma2_ts, sigma_t**2 - ratio**2 * sigma_s**2, rtol=1e-4)


def faces(n=64):
    """Batches of uint8 images with the spectrum, to fit priors to."""
    u = np.random.default_rng(3).normal(size=(n, H, W, 1)) * np.sqrt(spectrum(H, W)) * 0.3
    levels = np.clip((oracle.to_pixel(u) + 1) * 127.5, 0, 255).astype(np.uint8)
    return lambda: iter([levels])


CASES = pytest.mark.parametrize(
    "make, parametrisation",
    [(blurring, PredictEps()), (blurring, PredictV()), (ihdm, PredictX()), (ihdm, PredictV())],
    ids=["eps", "v", "IHDM, x", "IHDM, v"],
)


def in_both_scalings(make, parametrisation, fitted_prior):
    """The optimal denoiser of each scaling, with a prior that has the process's own scale."""
    for variance_preserving in (False, True):
        process, prior = make(variance_preserving), StandardNormal()
        if make is ihdm:
            prior = fitted_prior(tolerance=0.0)  # a scale of coefficients; none is left out
            prior.restore(prior.fit(faces(), process))
        yield optimal(process, parametrisation, prior)


@CASES
@pytest.mark.parametrize("sampler", [AncestralSampler(), DDIMSampler()])
def test_samples_do_not_depend_on_the_scaling(make, parametrisation, sampler):
    drawn, seen = [], []
    for denoiser in in_both_scalings(make, parametrisation, BlurredImages):
        latents, network = {}, denoiser.network

        def spying(z_t, t, latents=latents, network=network, process=denoiser.process):
            latents[float(t[0])] = process.basis.to_frequency(z_t)
            return network(z_t, t)

        denoiser.network = spying
        drawn.append(sampler(denoiser, shape=(5, H, W, 1), seed=[0, 7], num_steps=10))
        seen.append(latents)
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-4)
    assert np.abs(drawn[0]).max() > 0.5
    assert len(seen[0]) == 10
    plain, preserving = make(False), make(True)
    for t in seen[0]:
        (_, sigma_0), (_, sigma_1) = plain.alpha_sigma([t]), preserving.alpha_sigma([t])
        scaled = seen[0][t] * sigma_1 / sigma_0
        np.testing.assert_allclose(scaled, seen[1][t], atol=1e-4 * np.abs(scaled).max())


@CASES
def test_bound_and_variational_loss_do_not_depend_on_the_scaling(make, parametrisation):
    rng = np.random.default_rng(0)
    images = next(faces(8)())
    x = tf.constant(images / 127.5 - 1.0, tf.float32)
    noise = tf.constant(rng.normal(size=x.shape), tf.float32)
    t, seeds = rng.uniform(size=8).astype(np.float32), np.arange(16, dtype=np.int32).reshape(8, 2)
    bounds, losses = [], []
    for denoiser in in_both_scalings(make, parametrisation, GaussianPrior):
        bounds.append(variational_bound(denoiser, tf.constant(images), seeds=seeds, places=t))
        losses.append(VariationalLoss()(denoiser, x, t, noise))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    for term in ("diffusion", "reconstruction"):
        np.testing.assert_allclose(bounds[0][term], bounds[1][term], rtol=1e-4)
    # To N(0, I) the divergence of noise that is 2e-5 too quiet is next to nothing, but another.
    tolerance = dict(rtol=1e-4) if make is ihdm else dict(atol=1e-4)
    np.testing.assert_allclose(bounds[0]["prior"], bounds[1]["prior"], **tolerance)


# --- a noise schedule of one's own ----------------------------------------------------------------


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
    t = np.float64(np.float32(t))
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
    error = values.std() / np.sqrt(len(values))
    assert error < 0.04 * exact
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
