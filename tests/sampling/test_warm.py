"""Warm Diffusion: blur as wide as the noise is strong, two heads, and its flow, in float64."""

import numpy as np
import pytest
import scipy.integrate
import tensorflow as tf

from bdm_tf import config, exporting  # noqa: F401, for gin
from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.diffusion.noise_schedules import CosineSchedule, GeometricNoise
from bdm_tf.diffusion.shaped_noise import PowerLawNoise
from bdm_tf.diffusion.warm import BlurByNoise
from bdm_tf.likelihood import diffusion_term, low_discrepancy, no_bound
from bdm_tf.model import build_model
from bdm_tf.noise import PRIOR
from bdm_tf.noise_prior import NoisePrior
from bdm_tf.parametrisations import PredictEDM, PredictX
from bdm_tf.sampling import EDMSampler, WarmSampler
from bdm_tf.system.errors import UserError
from bdm_tf.training import loop  # noqa: F401, for gin
from bdm_tf.warm import PredictBlurAndRest
from tests import oracle
from tests.sampling.test_edm import SEED, SHAPE, VARIANCE, noise_of
from tests.toy_models import blurring, cold, draw, exploding, heated, small_network, warm

TIMES = np.float32([0.1, 0.4, 0.6, 0.8])
SIGMA = (0.002 * 40_000.0 ** np.float64(TIMES))[:, None, None, None]
SQUARED = np.add.outer(*[(np.pi * np.arange(4) / 4) ** 2] * 2)[..., None]


def two_heads(z_t, t):
    return tf.concat([small_network(z_t, t), 3.0 * small_network(-z_t, t)], axis=-1)


def drawn(sampler, denoiser, num_steps, count):
    """The coefficients of images."""
    given = dict(shape=(count, *SHAPE), seed=SEED, num_steps=num_steps)
    return oracle.to_frequency(np.float64(tf.function(lambda: sampler(denoiser, **given))()))


def test_blur_is_the_ratio_times_the_noise():
    x, eps = (np.float64(v) for v in draw())
    z_t = warm(ratio=0.7).diffuse(np.float32(x), TIMES, np.float32(eps))
    exact = heated(x, 0.7 * SIGMA) + SIGMA * eps
    np.testing.assert_allclose(z_t, exact, rtol=1e-5, atol=2e-5)


def test_each_head_learns_its_part_by_edms_scales():
    x, eps = (np.float64(v) for v in draw())
    blurred = heated(x, 0.5 * SIGMA)
    z = blurred + SIGMA * eps
    length = np.sqrt(SIGMA**2 + 0.5**2)
    c_skip, c_out = 0.25 / length**2, 0.5 * SIGMA / length
    given = {k: np.float32(v) for k, v in dict(x=x, eps=eps, z_t=z).items()}
    found = PredictBlurAndRest(0.5).target(warm(), t=TIMES, **given)
    exact = np.concatenate([(blurred - c_skip * z) / c_out, (x - blurred) / c_out], axis=-1)
    np.testing.assert_allclose(found, exact, rtol=2e-3, atol=2e-3)
    denoiser = Denoiser(two_heads, warm(), parametrisation=PredictBlurAndRest(0.5))
    u_eps, u_x = denoiser(np.float32(z), TIMES)
    f, g = np.split(np.float64(two_heads(np.float32(z / length), TIMES)), 2, axis=-1)
    u_blur = oracle.to_frequency(c_skip * z + c_out * f)
    u_rest = oracle.to_frequency(c_out * g) * (SQUARED > 0)  # blur takes nothing of the mean
    np.testing.assert_allclose(u_x, u_blur + u_rest, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        u_eps, (oracle.to_frequency(z) - u_blur) / SIGMA, rtol=2e-3, atol=2e-3
    )


def test_a_perfect_answer_gives_back_the_noise_and_the_image():
    x, eps = draw()
    z_t = warm().diffuse(x, TIMES, eps)
    answer = PredictBlurAndRest().target(warm(), x=x, eps=eps, z_t=z_t, t=TIMES)
    denoiser = Denoiser(lambda z, t: answer, warm(), parametrisation=PredictBlurAndRest())
    (u_eps, u_x), basis = denoiser(z_t, TIMES), warm().basis
    np.testing.assert_allclose(u_x, basis.to_frequency(x), atol=1e-4)
    np.testing.assert_allclose(u_eps, basis.to_frequency(eps), atol=2e-3)


def test_without_blur_it_is_edm_whatever_the_second_head_says():
    edm = Denoiser(small_network, exploding(), parametrisation=PredictEDM(), prior=NoisePrior())
    none = Denoiser(
        two_heads, warm(ratio=0.0), parametrisation=PredictBlurAndRest(), prior=NoisePrior()
    )
    x, eps = draw()
    z_t = edm.process.diffuse(x, TIMES, eps)
    np.testing.assert_array_equal(none.process.diffuse(x, TIMES, eps), z_t)
    for found, expected in zip(none(z_t, TIMES), edm(z_t, TIMES)):
        np.testing.assert_array_equal(found, expected)
    given = dict(x=x, eps=eps, z_t=z_t, t=TIMES)
    found, rest = tf.split(none.target(**given), 2, axis=-1)
    np.testing.assert_allclose(found, edm.target(**given), rtol=1e-4, atol=1e-4)
    assert np.abs(rest).max() < 1e-3  # rounding, over c_out
    images = drawn(WarmSampler(), none, 18, 3)
    np.testing.assert_allclose(images, drawn(EDMSampler(), edm, 18, 3), rtol=1e-4, atol=1e-5)


def gaussian_of_blur(process):
    """The denoiser of images whose coefficients are N(0, VARIANCE)."""

    def network(z_t, t):
        alpha, sigma = process.alpha_sigma(t)
        gain = alpha * np.float32(VARIANCE) / (alpha**2 * np.float32(VARIANCE) + sigma**2)
        return process.basis.to_pixel(gain * process.basis.to_frequency(z_t))

    return Denoiser(network, process, parametrisation=PredictX(), prior=NoisePrior())


def blur_of(sigma):
    """alpha, `[H, W, 1]`."""
    return np.exp(-SQUARED * (0.5 * sigma) ** 2 / 2)


def test_it_follows_the_flow_of_gaussian_data():
    # u keeps its place in its distribution, whose deviation is that of alpha u_x + sigma u_eps.
    low, high = (np.sqrt(blur_of(s) ** 2 * VARIANCE + s**2) for s in (0.002, 80.0))
    flow = 80.0 * noise_of(PRIOR, 4) * low / high
    exact = flow * blur_of(0.002) * VARIANCE / low**2  # E[x | z] of sigma_min
    denoiser = gaussian_of_blur(warm())
    coarse, fine = (np.abs(drawn(WarmSampler(), denoiser, n, 4) - exact).mean() for n in (32, 128))
    assert fine < 2e-3 and np.log(coarse / fine) / np.log(4) > 1.7  # of second order


def test_it_follows_the_flow_of_heads_that_disagree():
    def network(seen, t):
        return tf.concat([0.3 * seen, 0.2 * seen], axis=-1)

    def estimates(sigma):
        """Factors of u in u_blur_hat and u_x_hat."""
        squared = sigma**2 + 0.5**2
        blur = (0.5**2 + 0.3 * 0.5 * sigma) / squared
        return blur, blur + 0.2 * 0.5 * sigma / squared * (SQUARED.ravel() > 0)

    def slope(log_sigma, u):
        sigma = np.exp(log_sigma)
        blur, x = estimates(sigma)
        deblurred = SQUARED.ravel() * (0.5 * sigma) ** 2 * blur_of(sigma).ravel() * x
        return (1.0 - blur - deblurred) * u

    ends = np.log([80.0, 0.002])
    found = scipy.integrate.solve_ivp(slope, ends, np.ones(16), rtol=1e-9, atol=1e-12)
    gain = (found.y[:, -1] * estimates(0.002)[1]).reshape(4, 4, 1)
    denoiser = Denoiser(
        network, warm(), parametrisation=PredictBlurAndRest(0.5), prior=NoisePrior()
    )
    images = drawn(WarmSampler(), denoiser, 300, 2)
    np.testing.assert_allclose(images, gain * 80.0 * noise_of(PRIOR, 2), rtol=5e-3, atol=1e-4)


def test_the_bound_of_gaussian_data_is_the_integral_of_the_signal_to_noise_ratio():
    n, rng = 40_000, np.random.default_rng(3)
    u_x = np.float32(rng.normal(size=(n, *SHAPE)) * np.sqrt(VARIANCE))
    u_eps, denoiser = np.float32(rng.normal(size=u_x.shape)), gaussian_of_blur(warm())
    places = low_discrepancy(np.arange(n), 2)
    nats = diffusion_term(denoiser, u_x, u_eps, places, num_steps=None, importance=True)
    ends = [np.log1p(VARIANCE * (blur_of(s) / s) ** 2).sum() for s in (0.002, 80.0)]
    blocks = np.float64(nats).reshape(40, -1).mean(1)
    exact, error = 0.5 * (ends[0] - ends[1]), blocks.std(ddof=1) / np.sqrt(40)
    assert error < 0.01 * exact and abs(blocks.mean() - exact) < 4 * error
    assert no_bound(denoiser) is None


FILES = ["digits.gin", "base/warm_diffusion.gin"]
NARROW = ["UNet.channels = 8", "UNet.channel_multipliers = (1,)", "Model.image_shape = (8, 8, 3)"]


@pytest.mark.parametrize("more", [[], ["ablations/unet_in_frequency.gin"]])
def test_the_network_is_made_with_two_heads(more):
    config.parse([*FILES, *more], NARROW)
    model = build_model()
    z, t = tf.ones([2, 8, 8, 3]), tf.constant([0.2, 0.7])
    assert model.network(z, t).shape == (2, 8, 8, 6)
    assert model.denoiser()(z, t)[1].shape == (2, 8, 8, 3)
    assert model.losses(model.learner(), z, t, z).shape == 2


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: BlurByNoise(CosineSchedule()), "@CosineSchedule.*a_t = 1.*@GeometricNoise"),
        (lambda: BlurByNoise(PowerLawNoise(GeometricNoise())), "@PowerLawNoise.*all frequencies"),
        (lambda: BlurByNoise(None), "BlurByNoise.noise = None"),
        (lambda: BlurByNoise(GeometricNoise(), -1.0), "BlurByNoise.ratio=-1.0 must be a number"),
        (
            lambda: BlurringProcess((4, 4, 2), blur=BlurByNoise(GeometricNoise())),
            "@GeometricNoise.. is not the noise of the process, @CosineSchedule",
        ),
        (lambda: PredictBlurAndRest().check(cold()), "PredictBlurAndRest needs noise"),
        (lambda: PredictBlurAndRest().check(blurring()), "PredictBlurAndRest is for .*a_t = 1"),
        (lambda: WarmSampler().check(gaussian_of_blur(blurring())), "WarmSampler is for .*a_t = 1"),
        (lambda: EDMSampler().check(gaussian_of_blur(warm())), "without blur: .* WarmSampler"),
    ],
)
def test_what_does_not_go_together_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_channels_are_the_predictions_affair():
    with pytest.raises(UserError, match="output_channels"):
        config.parse(["digits.gin"], ["UNet.output_channels = 2"])
