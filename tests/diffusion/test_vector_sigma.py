"""A sigma_t for each frequency (Eq. 19), from drawing z_t to sampling and likelihood.

The paper's own process with each frequency rescaled, which must change nothing (section 3).
"""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.diffusion.blur_schedules import LogBlur
from bdm_tf.diffusion.noise_schedules import ConstantNoise, CosineSchedule
from bdm_tf.fitted_priors import BlurredImages, GaussianPrior
from bdm_tf.likelihood import variational_bound
from bdm_tf.objectives import VariationalLoss
from bdm_tf.parametrisations import PredictEps, PredictV, PredictX
from bdm_tf.priors import StandardNormal
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
        np.testing.assert_allclose(bounds[0][term], bounds[1][term], rtol=1e-4, atol=1e-6)
    # To N(0, I) the divergence of noise that is 2e-5 too quiet is next to nothing, but another.
    tolerance = dict(rtol=1e-4) if make is ihdm else dict(atol=1e-4)
    np.testing.assert_allclose(bounds[0]["prior"], bounds[1]["prior"], **tolerance)
