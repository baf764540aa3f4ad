"""Noise of some rows is that of the whole batch."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.noise import ALGORITHM, normal_rows

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


@pytest.mark.parametrize("image_shape", SHAPES)
def test_the_batchs_noise_is_tensorflows_own(image_shape):
    expected = tf.random.stateless_normal([12, *image_shape], SEED, alg=ALGORITHM)
    np.testing.assert_array_equal(drawn(0, 12, image_shape, jit_compile=False), expected)
