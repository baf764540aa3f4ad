"""Noise: TensorFlow's own numbers, with and without XLA, of some rows as of the whole batch."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.noise import choices, fold_in, image_seeds, normal, normal_rows, uniform

SEED = tf.constant([3, -17])
# Rows that begin between two of Philox's blocks, too.
SHAPES = [(8, 8, 1), (32, 32, 3), (4, 7, 3), (3, 5, 4), (2, 6, 1), (5, 3, 3), (3, 3, 2)]


def drawn(first, rows, image_shape, jit_compile):
    # Seed and row are arguments: what depends on constants alone, TensorFlow does without XLA.
    @tf.function(jit_compile=jit_compile)
    def draw(seed, first):
        return normal_rows(seed, first, (rows, *image_shape))

    return draw(SEED, tf.constant(first)).numpy()


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_rows_are_those_of_the_whole_batch(image_shape, jit_compile):
    whole = drawn(0, 12, image_shape, jit_compile)
    assert len(np.unique(whole)) > 0.99 * whole.size and abs(whole.std() - 1) < 0.2
    for first, rows in ((0, 3), (1, 4), (6, 3), (8, 4)):
        part = drawn(first, rows, image_shape, jit_compile)
        np.testing.assert_array_equal(part, whole[first : first + rows])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_a_batchs_noise_is_tensorflows_own(image_shape, jit_compile):
    expected = tf.random.stateless_normal([12, *image_shape], SEED, alg="philox")
    np.testing.assert_allclose(drawn(0, 12, image_shape, jit_compile), expected, atol=2e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_an_images_noise_is_tensorflows_own(image_shape, jit_compile):
    seeds = image_seeds(SEED, 5, 3)
    draw = tf.function(lambda seeds: normal(seeds, 2, image_shape), jit_compile=jit_compile)
    expected = [tf.random.stateless_normal(image_shape, s + [2, 0], alg="philox") for s in seeds]
    np.testing.assert_allclose(draw(seeds), expected, atol=2e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_times_are_tensorflows_own(jit_compile):
    draw = tf.function(lambda seed: uniform(seed, [64]), jit_compile=jit_compile)
    expected = tf.random.stateless_uniform([64], SEED, alg="philox")
    np.testing.assert_array_equal(draw(SEED), expected)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_folding_in_is_tensorflows_own(jit_compile):
    fold = tf.function(fold_in, jit_compile=jit_compile)
    expected = tf.random.experimental.stateless_fold_in(SEED, 7, alg="philox")
    np.testing.assert_array_equal(fold(SEED, tf.constant(7)), expected)


def test_choices_are_the_same_with_xla():
    seeds, weights = image_seeds(SEED, 0, 50), tf.range(1.0, 8.0)
    found = [tf.function(choices, jit_compile=xla)(seeds, weights) for xla in (False, True)]
    np.testing.assert_array_equal(*found)
    assert len(np.unique(found)) == 7
