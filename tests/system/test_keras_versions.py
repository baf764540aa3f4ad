"""What differs between Keras 2 and 3, on the Keras that is here."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.system import keras_versions

LEGACY = keras.__version__.startswith("2.")
KINDS = ["Adam", "SGD", "legacy.Adam", "legacy.SGD"] if LEGACY else ["Adam", "SGD"]
NAMES = ["Adadelta", "Adafactor", "Adagrad", "Adamax", "AdamW", "Ftrl", "Lion", "RMSprop"]
NAMES += ["Nadam"] * keras_versions.remembers_all(keras.optimizers.Nadam)
OLD_NAMES = ["legacy.Adadelta", "legacy.Adagrad", "legacy.Adamax", "legacy.Nadam"] if LEGACY else []


def layer():
    dense = keras.layers.Dense(2)
    dense.build([1, 3])
    return dense


def made(kind, **arguments):
    *modules, name = kind.split(".")
    module = keras.optimizers.legacy if modules else keras.optimizers
    if name == "SGD":
        arguments |= {"momentum": 0.9}
    return getattr(module, name)(learning_rate=0.1, **arguments)


def stepped(optimizer, dense, count=1):
    variables = dense.trainable_variables
    for _ in range(count):
        gradients = [tf.ones_like(v) for v in keras_versions.raw_variables(variables)]
        keras_versions.apply_reduced(optimizer, gradients, variables)


def test_raw_variables_are_those_of_tensorflow():
    dense = layer()
    for raw, weight in zip(keras_versions.raw_variables(dense.weights), dense.get_weights()):
        assert isinstance(raw, tf.Variable)
        np.testing.assert_array_equal(raw.numpy(), weight)


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_optimizer_remembers_is_all_there_before_the_first_step(kind):
    dense, optimizer = layer(), made(kind)
    keras_versions.build(optimizer, dense.trainable_variables)
    before = keras_versions.state_of(optimizer)
    moments = {"Adam": 2, "SGD": 1}[kind.split(".")[-1]]
    shapes = sorted(tuple(v.shape) for v in before if v.shape.rank)
    assert shapes == sorted([(3, 2), (2,)] * moments)
    stepped(optimizer, dense)
    after = keras_versions.state_of(optimizer)
    assert [v is w for v, w in zip(before, after)] == [True] * len(after)
    assert all(np.any(v.numpy() != 0) for v in after)


@pytest.mark.parametrize("kind", [*KINDS, *NAMES, *OLD_NAMES])
def test_what_is_remembered_and_the_weights_are_all_that_a_step_depends_on(kind):
    dense, optimizer = layer(), made(kind)
    keras_versions.build(optimizer, dense.trainable_variables)
    stepped(optimizer, dense, 3)
    other, restored = layer(), made(kind)
    keras_versions.build(restored, other.trainable_variables)
    other.set_weights(dense.get_weights())
    pairs = zip(keras_versions.state_of(restored), keras_versions.state_of(optimizer))
    for variable, value in pairs:
        variable.assign(value)
    stepped(optimizer, dense)
    stepped(restored, other)
    for found, expected in zip(other.get_weights(), dense.get_weights()):
        np.testing.assert_array_equal(found, expected)


def test_moments_are_found_by_their_variable():
    dense, optimizer = layer(), made("Adam")
    keras_versions.build(optimizer, dense.trainable_variables)
    places = [keras_versions.place_of(optimizer, v) for v in dense.trainable_variables]
    assert [tuple(optimizer._momentums[i].shape) for i in places] == [(3, 2), (2,)]


def test_an_average_that_the_optimizer_keeps_is_found():
    dense, optimizer = layer(), made("SGD", use_ema=True, ema_momentum=0.5)
    keras_versions.build(optimizer, dense.trainable_variables)
    weights = keras_versions.raw_variables(dense.trainable_variables)
    assert keras_versions.own_averages(made("SGD"), weights) is None
    stepped(optimizer, dense)
    before = [average.numpy() for average in keras_versions.own_averages(optimizer, weights)]
    stepped(optimizer, dense)
    after = keras_versions.own_averages(optimizer, weights)
    for average, old, weight in zip(after, before, weights):
        np.testing.assert_allclose(average.numpy(), (old + weight.numpy()) / 2, atol=1e-6)


def test_an_average_can_begin_from_other_weights():
    dense, optimizer = layer(), made("SGD", use_ema=True, ema_momentum=0.5)
    keras_versions.build(optimizer, dense.trainable_variables)
    dense.set_weights([np.full([3, 2], 100.0), np.full([2], 100.0)])
    weights = keras_versions.raw_variables(dense.trainable_variables)
    keras_versions.start_from(optimizer, weights)
    stepped(optimizer, dense)
    for average in keras_versions.own_averages(optimizer, weights):
        assert (average.numpy() > 99).all()
