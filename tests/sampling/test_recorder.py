"""What samplers see on the way, and noise that images share."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.noise import between, image_seeds, seeds_of
from bdm_tf.priors import StandardNormal
from bdm_tf.sampling.recorder import Recorder
from tests import toy_models
from tests.sampling.conformance import CASES, SHAPE, STEPS, draw

EACH = pytest.mark.parametrize("name", CASES)
SEED = tf.constant([0, 7])


def start_of(denoiser, numbers):
    return denoiser.prior.draw(denoiser.process, seeds_of(SEED, tf.constant(numbers)), SHAPE), 1.0


@EACH
def test_the_last_frame_is_the_image_and_the_others_lead_there(name):
    sampler, denoiser = CASES[name]()
    given = dict(shape=(3, *SHAPE), seed=SEED)
    seen = Recorder(sampler, STEPS, 4).trajectory(denoiser, **given)
    np.testing.assert_array_equal(seen.z_t[-1], sampler(denoiser, num_steps=STEPS, **given))
    np.testing.assert_array_equal(seen.x_hat[-1], seen.z_t[-1])
    np.testing.assert_array_equal(seen.z_t[0], start_of(denoiser, [0, 1, 2])[0])
    assert seen.t.shape == (4,) and seen.t[0] > 0.99 and (np.diff(seen.t) < 0).all()
    assert np.isfinite(seen.x_hat).all() and (seen.x_hat[0] != seen.x_hat[1]).numpy().any()


def test_frames_are_even_over_the_steps_and_their_number_may_be_a_tensor():
    sampler, denoiser = CASES["ancestral"]()
    given = dict(shape=(1, *SHAPE), seed=SEED)

    @tf.function
    def times(num_steps, num_frames):
        return Recorder(sampler, num_steps, num_frames).trajectory(denoiser, **given).t

    for num_frames, expected in (
        (1, [0]),
        (2, [1, 0]),
        (3, [1, 0.5, 0]),
        (7, np.arange(7)[::-1] / 6),
    ):
        found = times(tf.constant(STEPS), tf.constant(num_frames))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@EACH
def test_only_a_sampler_that_draws_noise_heeds_whose_it_is(name):
    case = CASES[name]()
    sampler, denoiser = case
    own = draw(case, count=3).numpy()
    others = draw(case, count=3, noise_of=tf.constant([5, 5, 5])).numpy()
    draws = sampler.draws_noise and not denoiser.process.is_deterministic
    assert (own != others).any() == draws


def test_images_share_the_noise_of_the_steps_or_the_start():
    case = CASES["ancestral"]()
    own = draw(case, count=3).numpy()
    same = [draw(case, count=3, noise_of=tf.constant(n)).numpy() for n in ([1, 1, 1], [0, 1, 2])]
    np.testing.assert_allclose(same[1], own, atol=1e-6)
    np.testing.assert_allclose(same[0][1], own[1], atol=1e-6)
    assert np.abs(same[0][0] - own[0]).max() > 0.02
    from_one = draw(case, count=3, start=start_of(case[1], [1, 1, 1])).numpy()
    np.testing.assert_allclose(from_one[1], own[1], atol=1e-6)
    assert np.abs(from_one[0] - from_one[1]).max() > 0.02


def test_noise_between_two_is_as_long_and_ends_in_them():
    shape = (8, 8, 2)
    a, b = (tf.random.stateless_normal((5, *shape), s) for s in ([1, 2], [3, 4]))
    a, b = (tf.repeat(v[:1], 5, 0) for v in (a, b))
    weight = tf.constant([0.0, 0.25, 0.5, 0.75, 1.0])
    found = between(a, b, weight).numpy()
    np.testing.assert_array_equal(found[0], a[0])
    np.testing.assert_array_equal(found[4], b[0])
    lengths = np.linalg.norm(found.reshape(5, -1), axis=1)
    assert lengths.min() > 0.95 * min(lengths[0], lengths[4])  # a straight line: 0.7
    flat = [v.reshape(-1) / np.linalg.norm(v) for v in found]
    angles = [np.arccos(flat[i] @ flat[i + 1]) for i in range(4)]
    np.testing.assert_allclose(angles, angles[0], rtol=0.1)
    np.testing.assert_array_equal(between(a, a, weight), a)


def test_starts_are_interpolated_in_the_coefficients_of_any_basis():
    process = toy_models.PROCESSES["not orthonormal"]
    seeds, halves = image_seeds(SEED, 0, 2), tf.fill([2], 0.5)
    prior, to_frequency = StandardNormal(), process.basis.to_frequency
    ends = prior.draw(process, seeds, SHAPE)
    found = prior.draw_between(process, seeds, seeds[::-1], halves, SHAPE)
    u = to_frequency(ends)
    np.testing.assert_allclose(to_frequency(found), between(u, u[::-1], halves), atol=1e-4)
