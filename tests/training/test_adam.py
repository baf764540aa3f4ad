"""FusedAdam against its equations in float64 and against Keras's Adam."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.training.adam import FusedAdam

SETTINGS = dict(learning_rate=0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-6)
GRADIENTS = np.random.default_rng(0).normal(size=(20, 3, 4)).astype(np.float32)


def after_all_steps(optimizer, jit_compile=None):
    variable = tf.Variable(tf.ones([3, 4]))
    optimizer.build([variable])
    step = tf.function(
        lambda g: optimizer.apply_gradients([(g, variable)]), jit_compile=jit_compile
    )
    for gradient in GRADIENTS:
        step(tf.constant(gradient))
    return variable.numpy()


def by_the_book():
    x, m, v = np.ones((3, 4)), 0.0, 0.0
    for n, g in enumerate(GRADIENTS.astype(np.float64), start=1):
        m, v = 0.8 * m + 0.2 * g, 0.99 * v + 0.01 * g**2
        x = x - 0.01 * (m / (1 - 0.8**n)) / (np.sqrt(v / (1 - 0.99**n)) + 1e-6)
    return x


@pytest.mark.parametrize("jit_compile", [None, True])
def test_twenty_steps_are_those_of_adam(jit_compile):
    found = after_all_steps(FusedAdam(**SETTINGS), jit_compile)
    np.testing.assert_allclose(found, by_the_book(), atol=1e-5)
    kerass = after_all_steps(keras.optimizers.Adam(**SETTINGS), jit_compile)
    np.testing.assert_allclose(found, kerass, atol=1e-6)


def test_steps_in_one_graph_are_steps_one_after_the_other():
    variable = tf.Variable(tf.ones([3, 4]))
    optimizer = FusedAdam(**SETTINGS)
    optimizer.build([variable])

    @tf.function(autograph=False)
    def all_steps(gradients):
        for gradient in tf.unstack(gradients):
            optimizer.apply_gradients([(gradient, variable)])

    all_steps(tf.constant(GRADIENTS))
    np.testing.assert_allclose(variable, by_the_book(), atol=1e-5)


def test_weight_decay_shrinks_the_weights_as_in_adamw():
    decayed = after_all_steps(FusedAdam(weight_decay=0.1, **SETTINGS))
    expected = after_all_steps(keras.optimizers.AdamW(weight_decay=0.1, **SETTINGS))
    np.testing.assert_allclose(decayed, expected, atol=1e-6)
