"""Each model of Table 1 with its own sampler: networks with known answers, recursions in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.fitted_priors import BlurredImages
from bdm_tf.noise import image_seeds, normal
from bdm_tf.parametrisations import PredictEps, PredictResidual, PredictStep, PredictX
from bdm_tf.sampling import (
    AncestralSampler,
    DDIMSampler,
    IHDMSampler,
    MomentumSampler,
    NaiveSampler,
)
from tests import oracle
from tests.sampling.models import (
    SHAPE,
    Spied,
    blurred,
    cold,
    cold_sigmas,
    fitted,
    ihdm,
    ihdm_sigmas,
    levels,
    lively,
    soft,
)

# --- a network that knows the image ---------------------------------------------------------------

ONE = levels() / 127.5 - 1.0


def knowing(process, parametrisation, prior):
    """A model whose network knows the one image that its prior is fitted to."""
    x = tf.constant(ONE, tf.float32)

    def network(z_t, t):
        # The only noise that z_t can have, where there is any.
        u_eps = process.u_eps_from_u_x(process.basis.to_frequency(z_t), basis_x, t)
        eps = process.basis.to_pixel(u_eps)
        return parametrisation.target(process, x=x, eps=eps, z_t=z_t, t=t)

    basis_x = process.basis.to_frequency(x)
    return Denoiser(network, process, parametrisation=parametrisation, prior=fitted(prior, process))


@pytest.mark.parametrize("delta", [0.0, 0.025])
def test_ihdm_with_the_true_steps_returns_the_image(delta):
    sigmas = ihdm_sigmas(50, 6.0)

    def network(z_t, t):  # A_(k-1) x - z_t, k counted and blurred in NumPy
        k = int(np.round(t[0] * 50))
        return tf.constant(blurred(ONE, sigmas[k - 1]), tf.float32) - z_t

    process = ihdm(50)
    prior = fitted(BlurredImages(noise=0.025), process)
    denoiser = Denoiser(network, process, parametrisation=PredictStep(), prior=prior)
    drawn = IHDMSampler(delta)(denoiser, shape=(3, *SHAPE), seed=[0, 7], num_steps=50)
    np.testing.assert_allclose(drawn, np.repeat(ONE, 3, 0), atol=1e-5)


@pytest.mark.parametrize("sampler", [MomentumSampler(), NaiveSampler()])
@pytest.mark.parametrize("num_steps", [50, 7])
def test_cold_diffusion_with_the_true_image_deblurs_it(sampler, num_steps):
    denoiser = knowing(cold(), PredictX(), BlurredImages(noise=0.0, tolerance=0.0))
    drawn = sampler(denoiser, shape=(1, *SHAPE), seed=[0, 7], num_steps=num_steps)
    np.testing.assert_allclose(drawn, ONE, atol=1e-5)


def test_softs_naive_sampler_with_the_true_image_returns_it():
    denoiser = knowing(soft(), PredictResidual(), BlurredImages())
    drawn = NaiveSampler()(denoiser, shape=(3, *SHAPE), seed=[0, 7], num_steps=20)
    np.testing.assert_allclose(drawn, np.repeat(blurred(ONE, 0.01), 3, 0), atol=1e-5)


def test_softs_momentum_sampler_with_the_true_image_leaves_the_noise_of_t_0():
    denoiser = knowing(soft(), PredictResidual(), BlurredImages(tolerance=0.0))
    draw = tf.function(MomentumSampler())
    drawn = draw(denoiser, shape=(50, *SHAPE), seed=[0, 7], num_steps=50)
    left = np.float64(drawn) - blurred(ONE, 0.01)
    # What a step keeps of the noise, sigma_s^2 / sigma_t^2, and what it adds; see the sampler.
    grid = 0.01 * 10.0 ** (np.arange(51) / 50)
    variance = grid[-1] ** 2
    for k in range(50, 0, -1):
        added = grid[k] ** 2 - grid[k - 1] ** 2 if k > 1 else 0.0
        variance = (grid[k - 1] / grid[k]) ** 4 * variance + added
    assert 0.009 < np.sqrt(variance) < 0.011  # sigma_0 = 0.01
    assert abs(left.var() / variance - 1) < 5 * np.sqrt(2 / left.size)
    assert abs(left.mean()) < 5 * np.sqrt(variance / left.size)


@pytest.mark.parametrize(
    "sampler, num_steps", [(AncestralSampler(), 200), (AncestralSampler(), 30), (DDIMSampler(), 30)]
)
@pytest.mark.parametrize(
    "parametrisation, min_scale", [(PredictEps(), 0.001), (PredictX(), 0.0)], ids=["eps", "x"]
)
def test_ihdm_as_gaussian_diffusion_inverts_its_process(
    parametrisation, min_scale, num_steps, sampler
):
    process = ihdm(200, highest=24.0, min_scale=min_scale)
    denoiser = knowing(process, parametrisation, BlurredImages())
    draw = tf.function(lambda n: sampler(denoiser, shape=(2, *SHAPE), seed=[0, 7], num_steps=n))
    drawn = draw(tf.constant(num_steps))
    np.testing.assert_allclose(drawn, np.repeat(ONE, 2, 0), atol=1e-4)


def test_the_samplers_begin_with_the_image_as_it_is_at_the_end():
    for process, sigma in [(cold(), cold_sigmas()[-1]), (ihdm(50), 6.0)]:
        prior = fitted(BlurredImages(noise=0.0), process)
        begin = prior.draw(process, image_seeds(tf.constant([0, 7]), 0, 2), SHAPE)
        np.testing.assert_allclose(begin, np.repeat(blurred(ONE, sigma), 2, 0), atol=1e-3)


# --- recursions written from the papers -----------------------------------------------------------


def noise_of(step, count=3):
    """What the samplers draw for a step, counted from 1, in pixel space."""
    white = normal(image_seeds(tf.constant([0, 7]), 0, count), step, SHAPE)
    return oracle.to_pixel(np.float64(white))


@pytest.mark.parametrize("sigma", [0.0, 0.02])
def test_without_more_noise_the_momentum_sampler_is_colds_algorithm_2(sigma):
    spied = Spied(cold(sigma), fitted(BlurredImages(noise=0.0), cold(), levels(4)))
    drawn = spied.draw(MomentumSampler(), 50)
    sigmas, x = cold_sigmas(), spied.latents[0]
    for s in range(50, 0, -1):
        x_hat = lively(x, s / 50)
        x = x - blurred(x_hat, sigmas[s]) + blurred(x_hat, sigmas[s - 1])
    np.testing.assert_allclose(drawn, x, atol=2e-5)
    assert np.abs(x - spied.latents[0]).max() > 0.1


def test_without_noise_the_naive_sampler_is_colds_algorithm_1():
    spied = Spied(cold(), fitted(BlurredImages(noise=0.0), cold(), levels(4)))
    drawn = spied.draw(NaiveSampler(), 50)
    sigmas, x = cold_sigmas(), spied.latents[0]
    for s in range(50, 0, -1):
        x = blurred(lively(x, s / 50), sigmas[s - 1])
    np.testing.assert_allclose(drawn, x, atol=2e-5)


def soft_at(t):
    """sigma_t and sigma_B,t."""
    return 0.01 * 10.0**t, 0.01 * 600.0**t


def test_with_growing_noise_the_momentum_sampler_is_soft_diffusions():
    spied = Spied(soft(), fitted(BlurredImages(), soft(), levels(4)))
    drawn = spied.draw(MomentumSampler(), 20)
    x = spied.latents[0]
    for k in range(20, 0, -1):
        (sigma_t, blur_t), (sigma_s, blur_s) = soft_at(k / 20), soft_at((k - 1) / 20)
        x_hat = lively(x, k / 20)
        y_hat = blurred(x_hat, blur_t)
        eta = noise_of(21 - k) if k > 1 else 0.0  # the last step adds none
        z = x - (sigma_s**2 - sigma_t**2) / sigma_t**2 * (y_hat - x)
        z = z + np.sqrt(sigma_t**2 - sigma_s**2) * eta
        x = z + (blurred(x_hat, blur_s) - y_hat)
    np.testing.assert_allclose(drawn, x, atol=2e-5)


def test_with_noise_the_naive_sampler_diffuses_its_estimate_again():
    spied = Spied(soft(), fitted(BlurredImages(), soft(), levels(4)))
    drawn = spied.draw(NaiveSampler(), 20)
    x = spied.latents[0]
    for k in range(20, 0, -1):
        sigma_s, blur_s = soft_at((k - 1) / 20)
        x = blurred(lively(x, k / 20), blur_s) + (sigma_s * noise_of(21 - k) if k > 1 else 0.0)
    np.testing.assert_allclose(drawn, x, atol=2e-5)


@pytest.mark.parametrize("delta", [0.0, 0.025])
def test_the_ihdm_sampler_is_the_originals_recursion(delta):
    prior = fitted(BlurredImages(noise=0.025), ihdm(20), levels(4))
    spied = Spied(ihdm(20), prior, PredictStep(), factor=0.1)
    drawn = spied.draw(IHDMSampler(delta), 20)
    u, seeds = spied.latents[0], image_seeds(tf.constant([0, 7]), 0, 3)
    for k in range(20, 0, -1):
        mean = u + 0.1 * lively(u, k / 20)
        u = mean + delta * np.float64(normal(seeds, 21 - k, SHAPE))
    np.testing.assert_allclose(drawn, mean, atol=2e-5)
    np.testing.assert_allclose(spied.times, np.arange(20, 0, -1) / 20, rtol=1e-6)
