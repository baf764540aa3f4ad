"""The passes that XLA compiles for training on a CPU, against TensorFlow's own operations."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.networks import UNet
from bdm_tf.networks import fused_norm as fused
from bdm_tf.networks.dropout import draw, kept, of_kept
from bdm_tf.networks.fused_norm import Kind, for_accelerators, fused_norm, suits
from bdm_tf.networks.group_norm import GroupNorm

SEED = tf.constant([3, 4])
SHAPE = (3, 4, 6, 64)


def example(dtype=tf.float32):
    rng = np.random.default_rng(0)
    x, modulation = rng.normal(0.5, 2.0, SHAPE), rng.normal(size=(SHAPE[0], 128))
    return (
        tf.constant(x, dtype),
        tf.constant(modulation, dtype),
        tf.constant(rng.normal(size=SHAPE)),
    )


def layer():
    norm = GroupNorm(64, name="norm")
    gamma, beta = np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)
    norm.gamma.assign(gamma)
    norm.beta.assign(beta)
    return norm


def value_and_gradients(norm, x, modulation, dy, **given):
    given_tensors = [x] if modulation is None else [x, modulation]
    with tf.GradientTape() as tape:
        tape.watch(given_tensors)
        y = norm(x, modulation, **given)
    found = [*given_tensors, *norm.trainable_variables]
    found = [getattr(v, "value", v) if not callable(getattr(v, "value", 0)) else v for v in found]
    return [y, *tape.gradient(y, found, output_gradients=tf.cast(dy, y.dtype))]


@pytest.mark.parametrize("dtype, near", [(tf.float32, 2e-5), (tf.bfloat16, 2e-2)])
@pytest.mark.parametrize("is_modulated", [False, True])
@pytest.mark.parametrize("swish", [False, True])
def test_value_and_gradients_are_those_of_single_operations(dtype, near, is_modulated, swish):
    x, modulation, dy = example(dtype)
    both = [
        value_and_gradients(
            layer(), x, modulation if is_modulated else None, dy, fused=f, swish=swish
        )
        for f in (True, False)
    ]
    for found, expected in zip(*both):
        assert found.dtype == expected.dtype
        expected = np.float32(expected)
        np.testing.assert_allclose(np.float32(found), expected, atol=near * np.abs(expected).max())


@pytest.mark.skipif(
    not suits((64, 64, 64, 3), 32), reason="there is a GPU, where single operations are taken"
)
def test_a_networks_gradients_are_those_of_single_operations(monkeypatch):
    """All of them: what follows a dense layer's bias must not be taken for a convolution's."""
    assert not suits((4, 8, 8, 3), 32)  # small
    monkeypatch.setattr(fused, "_WORTHWHILE", 0)
    network = UNet(
        (8, 8, 3),
        channels=32,
        channel_multipliers=(1, 2),
        num_res_blocks=1,
        attention_resolutions=(4,),
    )
    rng = np.random.default_rng(0)
    for variable in network.trainable_variables:
        variable.assign(rng.normal(0.0, 0.1, variable.shape))
    weights = [v if callable(v.value) else v.value for v in network.trainable_variables]
    z, t = tf.constant(rng.normal(size=(4, 8, 8, 3)), tf.float32), tf.constant([0.1, 0.3, 0.5, 0.9])

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(z, t, SEED) ** 2)
        return tape.gradient(loss, weights)

    found = tf.function(gradients, autograph=False)()
    with for_accelerators():
        assert not suits((64, 64, 64, 3), 32)
        expected = tf.function(gradients, autograph=False)()
    # Of a bias before a normalisation the gradient is rounding alone.
    largest = max(np.abs(theirs).max() for theirs in expected)
    for variable, ours, theirs in zip(network.trainable_variables, found, expected):
        near = 1e-4 * np.abs(theirs).max() + 1e-6 * largest
        np.testing.assert_allclose(ours, theirs, atol=near, err_msg=variable.name)


def test_dropout_follows_and_its_gradient_passes_what_is_kept():
    x, modulation, dy = example()
    given = {"swish": True, "fused": True}
    whole = value_and_gradients(layer(), x, modulation, dy, **given)[0]
    y, *_ = value_and_gradients(layer(), x, modulation, dy, dropout=0.3, seed=SEED, **given)
    is_kept = kept(draw(SHAPE, SEED), SHAPE[0], 0.3)
    np.testing.assert_allclose(y, of_kept(whole, is_kept, 0.3), atol=1e-5)
    expected = value_and_gradients(
        layer(), x, modulation, of_kept(tf.cast(dy, tf.float32), is_kept, 0.3), **given
    )
    found = value_and_gradients(layer(), x, modulation, dy, dropout=0.3, seed=SEED, **given)
    for ours, theirs in zip(found[1:], expected[1:]):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_an_image_keeps_its_gradient_whatever_the_batch():
    x, _, dy = example()
    norm, kind = layer(), Kind(32, True, 0.0)

    def gradient(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = fused_norm(x, tf.constant(norm.gamma), tf.constant(norm.beta), kind=kind)
        return tape.gradient(y, x, output_gradients=tf.cast(dy, tf.float32))

    np.testing.assert_allclose(gradient(x, dy)[1:2], gradient(x[1:2], dy[1:2]), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_dropout_drops_its_share_of_each_image_and_keeps_the_mean(count):
    x = tf.ones([count, 64, 64, 8])
    y = of_kept(x, kept(draw(x.shape, SEED), count, 0.2), 0.2).numpy()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.8)} or np.allclose(y.max(), 1.25, rtol=1e-4)
    shares = (y == 0).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(shares, 0.2, atol=5 * (0.2 * 0.8 / x[0].shape.num_elements()) ** 0.5)
    np.testing.assert_allclose(y.mean(), 1.0, atol=0.02)


def test_images_that_share_draws_are_independent():
    first, second = kept(draw((2, 64, 64, 8), SEED), 2, 0.5).numpy().reshape(2, -1)
    np.testing.assert_allclose(np.corrcoef(first, second)[0, 1], 0.0, atol=0.03)
