"""Samplers with networks whose answer is known in closed form."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.noise import image_seeds, normal
from bdm_tf.projections import PixelClip
from bdm_tf.sampling import AncestralSampler, DDIMSampler
from tests import oracle

SAMPLERS = [AncestralSampler(), DDIMSampler()]


def make_process(sigma_blur_max=2.0):
    return BlurringProcess((4, 4, 1), blur=BlurSchedule(sigma_blur_max=sigma_blur_max))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_true_noise_run_backwards_returns_the_image(sampler):
    process = make_process()
    x = np.random.default_rng(0).uniform(-1, 1, (1, 4, 4, 1)).astype(np.float32)

    def network(z_t, t):
        alpha_t, sigma_t = process.alpha_sigma(t)
        faded = process.basis.to_pixel(alpha_t * process.basis.to_frequency(x))
        return (z_t - faded) / sigma_t

    drawn = sampler(Denoiser(network, process), shape=(3, 4, 4, 1), seed=[0, 7], num_steps=50)
    np.testing.assert_allclose(drawn, np.repeat(x, 3, 0), atol=2e-3)


def gaussian_network(process, variance):
    """The optimal network where every frequency of the data is N(0, variance)."""

    def network(z_t, t):
        alpha_t, sigma_t = process.alpha_sigma(t)
        gain = sigma_t / (alpha_t**2 * variance + sigma_t**2)
        return process.basis.to_pixel(gain * process.basis.to_frequency(z_t))

    return network


def spectrum():
    i, j = np.meshgrid(np.arange(4), np.arange(4), indexing="ij")
    return (1.0 / (1.0 + i**2 + j**2))[None, :, :, None]


def ancestral_variance(num_steps):
    """The variance of each frequency at the end, by the linear recursion in float64."""
    v, data = np.ones((1, 4, 4, 1)), spectrum()
    for k in range(num_steps, 0, -1):
        s, t = [(k - 1) / num_steps], [k / num_steps]
        alpha, sigma = oracle.alpha_sigma(t, 4, 4, 2.0)
        gain = alpha * data / (alpha**2 * data + sigma**2)
        c_t, c_x, sigma2 = oracle.denoising_distribution(s, t, 4, 4, 2.0)
        v = gain**2 * v if k == 1 else (c_t + c_x * gain) ** 2 * v + sigma2
    return v[0]


def test_ancestral_sampling_reproduces_a_gaussian_data_set():
    process, n, steps = make_process(), 4000, 250
    denoiser = Denoiser(gaussian_network(process, spectrum().astype(np.float32)), process)
    draw = tf.function(
        lambda: AncestralSampler()(denoiser, shape=(n, 4, 4, 1), seed=[0, 1], num_steps=steps)
    )
    u = oracle.to_frequency(draw().numpy().astype(np.float64))
    expected = ancestral_variance(steps)
    assert (np.abs(u.var(0) / expected - 1) < 5 * np.sqrt(2 / n)).all()
    assert (np.abs(u.mean(0)) < 5 * np.sqrt(expected / n)).all()
    np.testing.assert_allclose(ancestral_variance(2000), spectrum()[0], rtol=0.02)
    between = np.corrcoef(u.reshape(n, -1).T) - np.eye(16)
    assert np.abs(between).max() < 5 / np.sqrt(n)


def test_ddim_follows_its_recursion_in_float64():
    process, data = make_process(), spectrum()
    denoiser = Denoiser(gaussian_network(process, data.astype(np.float32)), process)
    start = {}

    def spying(z_t, t):
        start.setdefault("z", z_t)
        return denoiser.network(z_t, t)

    spied = Denoiser(spying, process)
    drawn = DDIMSampler()(spied, shape=(5, 4, 4, 1), seed=[3, 1], num_steps=20)
    u = oracle.to_frequency(start["z"].numpy().astype(np.float64))
    for k in range(20, 0, -1):
        alpha_t, sigma_t = oracle.alpha_sigma([k / 20], 4, 4, 2.0)
        u_eps = u * sigma_t / (alpha_t**2 * data + sigma_t**2)
        u_x = (u - sigma_t * u_eps) / alpha_t
        alpha_s, sigma_s = oracle.alpha_sigma([(k - 1) / 20], 4, 4, 2.0)
        u = u_x if k == 1 else alpha_s * u_x + sigma_s * u_eps
    np.testing.assert_allclose(drawn, oracle.to_pixel(u), atol=2e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clipping_leaves_estimates_in_range_alone_and_holds_a_bad_network_there(sampler):
    process = make_process()

    def draw(variance, clip):
        network = gaussian_network(process, np.full((1, 4, 4, 1), variance, np.float32))
        denoiser = Denoiser(network, process, PixelClip() if clip else None)
        return sampler(denoiser, shape=(5, 4, 4, 1), seed=[0, 7], num_steps=20).numpy()

    np.testing.assert_allclose(draw(1e-3, True), draw(1e-3, False), atol=1e-4)
    assert np.abs(draw(10.0, False)).max() > 1.5
    assert np.abs(draw(10.0, True)).max() <= 1.0 + 1e-5


@pytest.mark.parametrize("sampler", [AncestralSampler("noisy"), *SAMPLERS])
def test_an_image_depends_on_seed_and_number_alone(sampler):
    process = make_process()
    denoiser = Denoiser(gaussian_network(process, spectrum().astype(np.float32)), process)
    whole = sampler(denoiser, shape=(7, 4, 4, 1), seed=[0, 7], num_steps=5)
    part = sampler(denoiser, shape=(4, 4, 4, 1), seed=[0, 7], num_steps=5, first=3)
    np.testing.assert_allclose(whole[3:], part, atol=1e-5)
    other = sampler(denoiser, shape=(7, 4, 4, 1), seed=[0, 8], num_steps=5)
    assert np.abs(whole - other).max() > 0.1


def test_no_two_images_share_noise_at_any_step():
    seeds = image_seeds(tf.constant([0, 7]), 0, 20)
    noise = tf.concat([normal(seeds, step, (2, 2, 1)) for step in range(20)], 0)
    assert len(np.unique(noise.numpy().reshape(400, -1), axis=0)) == 400


def test_the_last_step_is_noisy_only_if_asked():
    process = make_process()
    denoiser = Denoiser(gaussian_network(process, spectrum().astype(np.float32)), process)
    quiet, noisy = (
        AncestralSampler(last)(denoiser, shape=(9, 4, 4, 1), seed=[0, 7], num_steps=5)
        for last in ("x_hat", "noisy")
    )
    assert np.abs(quiet - noisy).max() > 1e-3


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="last_step"):
        AncestralSampler("first")
    with pytest.raises(ValueError, match="num_steps=0"):
        DDIMSampler()(Denoiser(None, make_process()), shape=(1, 4, 4, 1), seed=[0, 0], num_steps=0)
