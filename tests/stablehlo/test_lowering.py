"""Lowering without variables, without a TPU: the same step, and problems by name."""

import os
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import config, exporting  # noqa: F401, exporting for gin
from bdm_tf.stablehlo.functional import pure
from bdm_tf.stablehlo.lowering import Uncompilable, lower
from bdm_tf.stablehlo.steps import build, use_defaults
from bdm_tf.system.errors import UserError
from bdm_tf.system.keras_versions import raw_variables
from bdm_tf.training.adam import FusedAdam
from tests.conftest import ROOT, TINY

X = tf.TensorSpec([8], tf.float32)
TOO_OLD = tf.__version__.startswith("2.15")
needs_stablehlo = pytest.mark.skipif(TOO_OLD, reason="TensorFlow 2.15 has no StableHLO")


def variables_and_step():
    weight = tf.Variable(tf.linspace(1.0, 2.0, 8))
    average = tf.Variable(tf.zeros([8]))
    optimizer = FusedAdam(learning_rate=0.1)
    optimizer.build([weight])

    def read(x, i, total):  # variables, in a loop, and in one branch alone
        x_i = x * tf.cond(i > 0, lambda: tf.gather(weight, tf.range(8)), lambda: tf.ones([8]))
        return i + 1, total + x_i

    def step(x, count):
        _, total = tf.while_loop(lambda i, _: i < 3, partial(read, x), [0, tf.zeros([8])])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((weight - total) ** 2) * tf.cast(count, tf.float32)
        optimizer.apply_gradients([(tape.gradient(loss, weight), weight)])
        average.assign_sub(0.1 * (average - weight))
        return loss

    return [weight, average, *raw_variables(optimizer.variables)], step


@needs_stablehlo
def test_the_step_without_variables_is_the_step():
    variables, step = variables_and_step()
    x, count = tf.range(8.0), tf.constant(2, tf.int64)
    rewritten = pure(step, [X, tf.TensorSpec([], tf.int64)])
    concrete = tf.function(step).get_concrete_function(X, tf.TensorSpec([], tf.int64))
    by_handle = {v.handle._id: v for v in variables}
    captured = [by_handle[t._id] for t in concrete.captured_inputs if t.dtype == tf.resource]
    assert len(captured) == len(rewritten.specs) - rewritten.num_arguments
    results = rewritten.function(x, count, *[v.read_value() for v in captured])
    loss = tf.function(step)(x, count)
    np.testing.assert_allclose(results[0], loss, rtol=1e-6)
    assert len(rewritten.aliases) == len(results) - rewritten.num_results >= 5
    for new, argument in zip(results[rewritten.num_results :], rewritten.aliases):
        variable = captured[argument - rewritten.num_arguments]
        np.testing.assert_allclose(new, variable, rtol=1e-5, err_msg=variable.name)


def test_a_branch_that_writes_a_variable_is_refused():
    variable = tf.Variable(0.0)

    def step(x):
        return tf.cond(x[0] > 0, lambda: variable.assign_add(1.0), lambda: variable + 0.0)

    with pytest.raises(UserError, match="If .*, which writes a variable"):
        pure(step, [X])


@pytest.mark.parametrize(
    ("model", "steps"), [("ihdm", 200), ("warm_diffusion", 3), ("relay_second", 3)]
)
def test_samplers_with_branches_and_fitted_priors_need_no_data(model, steps):
    file = os.path.join(ROOT, "gin", "digits", f"{model}.gin")
    config.parse([file], [*TINY, f"sample.num_steps = {steps}"])
    use_defaults(None)
    _, (sample, specs) = build("sample", batch_size=2, cores=1)
    rewritten = pure(sample, specs)
    outputs = rewritten.function.get_concrete_function(*rewritten.specs).structured_outputs
    assert outputs[0].shape == (2, 8, 8, 1) and not rewritten.aliases


def python_on_the_host(x):
    doubled = tf.numpy_function(lambda a: a * 2, [x], tf.float32)
    doubled.set_shape([8])
    return doubled


def a_shape_that_depends_on_values(x):
    return tf.reduce_sum(tf.boolean_mask(x, x > 0))


PLANTED = {
    python_on_the_host: ("PyFunc", "Python on the host cannot be part"),
    a_shape_that_depends_on_values: ("Where", "shapes are known when it compiles"),
}


@needs_stablehlo
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_problem_is_named_with_its_line(planted):
    weight = tf.Variable(tf.ones([8]))

    def step(x):
        weight.assign_add(x)
        return planted(weight * x)

    operation, way_out = PLANTED[planted]
    with pytest.raises(Uncompilable) as caught:
        lower(step, [X])
    problem = caught.value.problem
    assert problem.operation == operation, problem
    assert way_out in problem.way_out
    file, _, line = problem.where.rpartition(":")
    first = planted.__code__.co_firstlineno
    assert file == __file__ and first < int(line) <= first + 3, problem


@needs_stablehlo
def test_a_sound_step_is_lowered_with_its_variables_in_place():
    weight = tf.Variable(tf.ones([8]))

    def step(x):
        weight.assign_add(x)
        return tf.reduce_sum(weight)

    module = lower(step, [X])
    assert "stablehlo.add" in module.text and "mhlo.copy" not in module.text
    assert module.aliases == [[1, 1]]


@pytest.mark.skipif(not TOO_OLD, reason="this TensorFlow has StableHLO")
def test_a_tensorflow_without_stablehlo_is_named_with_a_later_one():
    with pytest.raises(UserError, match=r"TensorFlow 2\.15.*take a later one"):
        lower(lambda x: 2.0 * x, [X])
