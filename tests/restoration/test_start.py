"""Sampling that begins at a time below 1, from a z that is given."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.fitted_priors import BlurredImages
from bdm_tf.grids import FittedGrid, PowerGrid
from bdm_tf.noise import image_seeds
from bdm_tf.parametrisations import PredictX
from bdm_tf.sampling import AncestralSampler, AngleSampler, DPMSolver2MSampler, MomentumSampler
from bdm_tf.spectrum import Spectrum
from bdm_tf.system.errors import UserError
from tests.sampling.models import cold, fitted
from tests.toy_models import blurring, draw, small_network

SHAPE = (4, 4, 2)
SPECTRUM = Spectrum(np.zeros(SHAPE), np.linspace(1.0, 0.1, 32).reshape(SHAPE))
X, EPS = draw()


class Watched:
    """A denoiser that remembers the times it was asked at, and knows the image."""

    def __init__(self, network=lambda z_t: X):
        self.times = []

        def watched(z_t, t):
            self.times.append(float(t[0]))
            return network(z_t)

        self.denoiser = Denoiser(watched, blurring(), parametrisation=PredictX(), spectrum=SPECTRUM)

    def draw(self, sampler, start, num_steps=8, **more):
        return sampler(
            self.denoiser, shape=X.shape, seed=[0, 7], num_steps=num_steps, start=start, **more
        )


@pytest.mark.parametrize(
    "t, expected",
    [
        (1.0, [1, 49 / 64, 36 / 64, 25 / 64, 16 / 64, 9 / 64, 4 / 64, 1 / 64]),
        (0.3, [0.3, 16 / 64, 9 / 64, 4 / 64, 1 / 64]),
        (0.25, [16 / 64, 9 / 64, 4 / 64, 1 / 64]),
        (0.001, [0.001]),
    ],
)
def test_steps_above_the_start_are_left_out(t, expected):
    watched = Watched()
    watched.draw(AncestralSampler(grid=PowerGrid(2.0)), (EPS, t))
    np.testing.assert_allclose(watched.times, expected, rtol=1e-6)


def test_a_start_at_1_with_the_priors_noise_is_sampling_to_the_bit():
    denoiser = Denoiser(small_network, blurring(), parametrisation=PredictX(), spectrum=SPECTRUM)
    given = {"shape": X.shape, "seed": tf.constant([0, 7]), "num_steps": 5}
    z = denoiser.prior.draw(denoiser.process, image_seeds(given["seed"], 0, 4), SHAPE)
    for sampler in (AncestralSampler(), AngleSampler(FittedGrid()), DPMSolver2MSampler()):
        free = sampler(denoiser, **given)
        np.testing.assert_array_equal(sampler(denoiser, start=(z, 1.0), **given), free)


def test_near_t_0_the_image_comes_back():
    process, t = blurring(), tf.constant(0.002)
    z_t = process.diffuse(X, tf.fill([4], t), EPS)
    x = Watched(lambda z_t: z_t).draw(AncestralSampler(), (z_t, t))
    np.testing.assert_allclose(x, X, atol=0.1)


def test_the_second_order_solver_begins_with_a_step_of_first_order():
    # Its first estimate has none before it, wherever it begins.
    watched = Watched(lambda z_t: 0.5 * z_t)
    x = watched.draw(DPMSolver2MSampler(), (EPS, 0.2), num_steps=10)
    assert watched.times == pytest.approx([0.2, 0.1])
    process = watched.denoiser.process
    (_, sigma_t), (alpha_s, sigma_s) = (process.alpha_sigma([v]) for v in (0.2, 0.1))
    drift = -alpha_s * np.expm1(0.5 * process.logsnr_difference([0.1], [0.2]))
    u = sigma_s / sigma_t * process.basis.to_frequency(EPS)
    u += drift * process.basis.to_frequency(0.5 * EPS)
    np.testing.assert_allclose(x, 0.5 * process.basis.to_pixel(u), atol=1e-5)


@pytest.mark.parametrize(
    "start, words",
    [
        ((EPS, 0.0), "start's t=0.0 must be a number above 0, at most 1"),
        ((EPS, 1.5), "start's t=1.5"),
        ((EPS[:2], 0.5), r"start has shapes \(2, 4, 4, 2\) and \(\), must be \(4, 4, 4, 2\)"),
        ((EPS, tf.constant([0.5])), r"and \(1,\), must be"),
    ],
)
def test_starts_that_are_none_are_refused(start, words):
    with pytest.raises(UserError, match=words):
        Watched().draw(AncestralSampler(), start)


def test_a_model_of_k_steps_begins_at_1_alone():
    process = cold()
    prior = fitted(BlurredImages(), process)
    denoiser = Denoiser(lambda z, t: z, process, parametrisation=PredictX(), prior=prior)
    z = tf.zeros([1, *process.image_shape])
    with pytest.raises(UserError, match="take 1 to 50 steps, .* and begin at t = 1 alone"):
        MomentumSampler()(denoiser, shape=z.shape, seed=[0, 7], num_steps=5, start=(z, 0.5))
    with pytest.raises(UserError, match="repeats: .* this model has K steps or no noise"):
        MomentumSampler()(denoiser, shape=z.shape, seed=[0, 7], num_steps=5, repeats=2)
    with pytest.raises(UserError, match="sampler.repeats=0 must be a whole number, at least 1"):
        Watched().draw(AncestralSampler(), None, repeats=0)
