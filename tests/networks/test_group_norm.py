"""GroupNorm and its written-out gradient, against the definition in float64."""

import numpy as np
import tensorflow as tf

from bdm_tf.networks.group_norm import EPSILON, GroupNorm, group_norm


def definition(x, factor, offset, groups):
    """Group normalisation by the book, in the dtype of `x`."""
    batch, height, width, channels = x.shape
    grouped = tf.reshape(x, [batch, height * width, groups, channels // groups])
    mean, variance = tf.nn.moments(grouped, [1, 3], keepdims=True)
    normal = tf.reshape((grouped - mean) / tf.sqrt(variance + EPSILON), x.shape)
    return normal * factor[:, None, None, :] + offset[:, None, None, :]


def example(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 2.0, (2, 4, 6, 64))
    factor, offset = rng.normal(size=(2, 2, 64))
    dy = rng.normal(size=x.shape)
    return [tf.constant(v, dtype) for v in (x, factor, offset, dy)]


def value_and_gradients(function, dtype):
    x, factor, offset, dy = example(dtype)
    with tf.GradientTape() as tape:
        tape.watch([x, factor, offset])
        y = function(x, factor, offset, groups=32)
    return [y, *tape.gradient(y, [x, factor, offset], output_gradients=dy)]


def test_value_and_gradients_are_those_of_the_definition():
    exact = value_and_gradients(definition, tf.float64)
    for found, expected in zip(value_and_gradients(group_norm, tf.float32), exact):
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_xla_compiles_value_and_gradients():
    compiled = tf.function(lambda: value_and_gradients(group_norm, tf.float32), jit_compile=True)
    for found, expected in zip(compiled(), value_and_gradients(group_norm, tf.float32)):
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_the_layer_applies_its_weights_then_the_images_scale_and_shift():
    x, scale, shift, _ = example(tf.float32)
    layer = GroupNorm(64, name="norm")
    gamma, beta = np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    plain = definition(x, tf.constant([gamma] * 2), tf.constant([beta] * 2), 32)
    modulated = plain * (1 + scale[:, None, None, :]) + shift[:, None, None, :]
    np.testing.assert_allclose(layer(x), plain, atol=2e-5)
    np.testing.assert_allclose(layer(x, tf.concat([scale, shift], 1)), modulated, atol=1e-4)
