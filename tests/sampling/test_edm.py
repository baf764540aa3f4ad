"""EDM's sampler and prior and Relay Diffusion's sampler: published recursions, Gaussian data."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.likelihood import no_bound
from bdm_tf.noise import PRIOR, image_seeds, normal
from bdm_tf.noise_prior import NoisePrior
from bdm_tf.parametrisations import PredictStep, PredictX
from bdm_tf.sampling import EDMSampler, RelaySampler
from bdm_tf.system.errors import UserError
from tests import oracle
from tests.toy_models import blurring, cold, exploding, ihdm, relay

SHAPE, SEED = (4, 4, 2), [0, 3]
VARIANCE = np.broadcast_to(0.5 / (1.0 + np.add.outer(np.arange(4), np.arange(4)))[..., None], SHAPE)


def gaussian(process=None):
    """The denoiser of images whose coefficients are N(0, VARIANCE)."""
    process = process or exploding()

    def network(z_t, t):
        _, sigma = process.alpha_sigma(t)
        gain = np.float32(VARIANCE) / (np.float32(VARIANCE) + sigma**2)
        return process.basis.to_pixel(gain * process.basis.to_frequency(z_t))

    return Denoiser(network, process, parametrisation=PredictX(), prior=NoisePrior())


def drawn(sampler, num_steps, count):
    """The coefficients of images."""
    draw = tf.function(
        lambda: sampler(gaussian(), shape=(count, *SHAPE), seed=SEED, num_steps=num_steps)
    )
    return oracle.to_frequency(np.float64(draw()))


def noise_of(step, count):
    return np.float64(normal(image_seeds(tf.constant(SEED), 0, count), step, SHAPE))


def published(num_steps, count, s_churn=0.0, s_min=0.0, s_max=np.inf, s_noise=1.0):
    """Algorithm 2 on Gaussian data, by their grid (Eq. 5)."""

    def slope(x, sigma):
        return (x - VARIANCE / (VARIANCE + sigma**2) * x) / sigma

    i, rho = np.arange(num_steps), 7.0
    low, high = 0.002 ** (1 / rho), 80.0 ** (1 / rho)
    grid = np.append((high + i / (num_steps - 1) * (low - high)) ** rho, 0.0)
    x = 80.0 * noise_of(PRIOR, count)
    for k in range(num_steps):
        inside = s_min <= grid[k] <= s_max
        gamma = min(s_churn / num_steps, np.sqrt(2.0) - 1.0) if inside else 0.0
        sigma = min(grid[k] * (1.0 + gamma), 80.0)
        x = x + np.sqrt(sigma**2 - grid[k] ** 2) * s_noise * noise_of(k + 1, count)
        first, step = slope(x, sigma), grid[k + 1] - sigma
        there = x + step * first
        if grid[k + 1]:
            there = x + step * (first + slope(there, grid[k + 1])) / 2
        x = there
    return x


@pytest.mark.parametrize(
    "churn", [{}, dict(s_churn=4.0, s_min=0.05, s_max=50.0, s_noise=1.003), dict(s_churn=30.0)]
)
def test_it_is_the_published_algorithm(churn):
    found = drawn(EDMSampler(**churn), 10, 3)
    np.testing.assert_allclose(found, published(10, 3, **churn), rtol=2e-3, atol=2e-4)


def test_without_churn_nothing_is_random_but_the_start_and_with_it_all_is():
    z = tf.constant(80.0 * noise_of(PRIOR, 2), tf.float32)
    t, s = tf.constant(1.0), tf.constant(0.7)
    given = dict(t=tf.constant(0.8), s=s, is_last=tf.constant(False), memory=())

    def step(sampler, seed):
        noise = tf.random.stateless_normal(z.shape, [0, seed])
        return sampler.step(gaussian(), z, noise=noise, **given)[0].numpy()

    calm, churned = EDMSampler(), EDMSampler(s_churn=0.1)
    np.testing.assert_array_equal(step(calm, 1), step(calm, 2))
    assert np.abs(step(churned, 1) - step(churned, 2)).max() > 0.1
    given["t"] = t  # there is no more noise than that
    np.testing.assert_array_equal(step(churned, 1), step(calm, 2))


def test_without_churn_it_follows_the_flow_of_gaussian_data():
    start = 80.0 * noise_of(PRIOR, 4)
    # u grows with the standard deviation that it has; then comes E[x | z] of sigma_min.
    flow = start * np.sqrt((VARIANCE + 0.002**2) / (VARIANCE + 80.0**2))
    exact = flow * VARIANCE / (VARIANCE + 0.002**2)
    coarse, fine = (np.abs(drawn(EDMSampler(), n, 4) - exact).mean() for n in (24, 96))
    assert fine < 2e-3 and np.log(coarse / fine) / np.log(4) > 1.7  # of second order


def test_with_churn_the_variance_of_the_data_is_reproduced():
    n = 1500
    u = drawn(EDMSampler(s_churn=40.0), 100, n)
    assert (np.abs(u.var(0) / VARIANCE - 1.0) < 0.03 + 5 * np.sqrt(2 / n)).all()


# --- Relay Diffusion ------------------------------------------------------------------------------


def test_without_blur_and_new_noise_relay_diffusions_sampler_is_edms():
    relayed = drawn(RelaySampler(noise_share=0.0), 8, 3)
    np.testing.assert_allclose(relayed, drawn(EDMSampler(), 8, 3), rtol=1e-3, atol=1e-4)


def relay_alpha_sigma(t):
    """alpha_t `[H, W, 1]` in patches of 2x2 pixels, sigma_t, and the noise of the coefficients."""
    f = np.tile(np.pi * np.arange(2) / 2, 2)
    squared = (f[:, None] ** 2 + f**2)[..., None]
    sigma_blur = 3.0 * np.sin(t * np.pi / 2) ** 2
    u = max(t, 0.93 * scipy.stats.norm.cdf((np.log(0.0075) + 1.2) / 1.2))
    sigma = np.exp(1.2 * scipy.stats.norm.ppf(0.93 * u) - 1.2)
    w = np.sqrt(1.0 + 0.15**2 * 4 * (squared == 0))
    return 0.999 * np.exp(-squared * sigma_blur**2 / 2) + 0.001, sigma, sigma * w


def test_relay_diffusions_sampler_is_its_recursion():
    process, count, n, times = relay(), 3, 8, []

    def estimate(u, t):
        return 0.6 * u + 0.1 * t

    def network(z_t, t):
        times.append(float(t[0]))
        return process.basis.to_pixel(estimate(process.basis.to_frequency(z_t), t[0]))

    denoiser = Denoiser(network, process, parametrisation=PredictX(), prior=NoisePrior())
    found = RelaySampler()(denoiser, shape=(count, *SHAPE), seed=SEED, num_steps=n)
    nodes = times[::2]
    assert len(times) == 2 * n - 1 and nodes[0] == 1.0 and nodes[-1] == 0.0
    u = relay_alpha_sigma(1.0)[2] * noise_of(PRIOR, count)
    for k, (t, s) in enumerate(zip(nodes, nodes[1:]), 1):
        (a_t, sigma_t, _), (a_s, sigma_s, noise_s) = relay_alpha_sigma(t), relay_alpha_sigma(s)
        gamma = np.sqrt(1 - 0.2**2) * sigma_s / sigma_t

        def along(d, u=u, a_t=a_t, a_s=a_s, sigma_t=sigma_t, gamma=gamma):
            return (a_s + gamma - gamma * a_t) * u + sigma_t * (gamma * a_t - a_s) * d

        noise, d = 0.2 * noise_s * noise_of(k, count), (u - estimate(u, t)) / sigma_t
        there = along(d) + noise
        u = along((d + (there - estimate(there, s)) / sigma_s) / 2) + noise
    exact = process.basis.to_pixel(np.float32(estimate(u, 0.0)))
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=2e-4)
    sigma = [relay_alpha_sigma(t)[1] ** (1 / 7) for t in nodes]
    np.testing.assert_allclose(np.diff(sigma), (sigma[-1] - sigma[0]) / (n - 1), rtol=1e-2)


def test_relay_diffusions_sampler_refuses_what_changes_its_scale():
    with pytest.raises(UserError, match="RelaySampler is for processes with a_t = 1.*HeunSampler"):
        RelaySampler().check(Denoiser(lambda z, t: z, blurring()))
    with pytest.raises(UserError, match="without blur: sample with RelaySampler, HeunSampler"):
        EDMSampler().check(Denoiser(lambda z, t: z, relay()))
    RelaySampler().check(Denoiser(lambda z, t: z, relay()), 2)


def test_the_prior_is_the_noise_that_the_process_ends_in():
    process, prior = exploding(), NoisePrior()
    z = prior.draw(process, image_seeds(tf.constant(SEED), 0, 3), SHAPE)
    np.testing.assert_allclose(z, oracle.to_pixel(80.0 * noise_of(PRIOR, 3)), rtol=1e-4, atol=1e-3)
    u_x = np.random.default_rng(0).normal(size=(3, *SHAPE))
    kl = 0.5 * np.sum((u_x / 80.0) ** 2, axis=(1, 2, 3))  # N(u_x, 80^2) from N(0, 80^2)
    np.testing.assert_allclose(prior.divergence(process, np.float32(u_x)), kl, rtol=1e-5)
    assert no_bound(gaussian()) is None


@pytest.mark.parametrize(
    "process, parametrisation, words",
    [
        (blurring(0.0), PredictX(), "EDMSampler is for processes with a_t = 1.* HeunSampler"),
        (cold(), PredictX(), "EDMSampler needs noise"),
        (ihdm(), PredictX(), "continuous time.* 10 steps"),
        (ihdm(), PredictStep(), "PredictStep: sample with IHDMSampler"),
    ],
)
def test_what_it_is_not_for_is_refused(process, parametrisation, words):
    denoiser = Denoiser(lambda z, t: z, process, parametrisation=parametrisation)
    with pytest.raises(UserError, match=words):
        EDMSampler().check(denoiser)


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="num_steps=1 must be at least 2"):
        EDMSampler().check(gaussian(), 1)
    for given in (dict(s_churn=-1.0), dict(s_min=2.0, s_max=1.0), dict(s_noise=0.0)):
        with pytest.raises(UserError, match=rf"EDMSampler\.{next(iter(given))}="):
            EDMSampler(**given)
