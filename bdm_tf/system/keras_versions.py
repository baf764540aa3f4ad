"""Where Keras 2 and 3 differ; and Keras 2's legacy optimizers, which tensorflow-addons' are."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf


def raw_variables(variables: Iterable) -> list[tf.Variable]:
    """The `tf.Variable`s behind Keras variables (Keras 3 wraps them, Keras 2 does not)."""
    return [v if callable(v.value) else v.value for v in variables]


def is_legacy(optimizer) -> bool:
    """Whether an optimizer is a `keras.optimizers.legacy.Optimizer`, which Keras 3 has none of."""
    return hasattr(optimizer, "_create_all_weights")


def build(optimizer, variables: Sequence) -> None:
    """Makes all that an optimizer remembers of the variables it is to train."""
    if not is_legacy(optimizer):
        optimizer.build(variables)
        return
    for inner in _nested(optimizer)[1:]:  # tensorflow-addons shares it with the next one alone
        inner._iterations = optimizer.iterations
    for one in _nested(optimizer):
        if hasattr(getattr(one, "average_op", None), "python_function"):
            one.average_op = _traced_for_each(one)
    optimizer._create_all_weights(variables)


def _traced_for_each(averaging):
    """`SWA.average_op`, traced for each weight: tfa takes one for all its shape on replicas."""
    traced_once = type(averaging).average_op.python_function

    def average_op(*given):
        return tf.function(traced_once)(averaging, *given)

    return average_op


def start_from(optimizer, weights: Sequence[tf.Variable]) -> None:
    """Has a built optimizer's copies and averages of the weights begin with what these now are."""
    if not is_legacy(optimizer):
        for average, weight in zip(own_averages(optimizer, weights) or [], weights):
            average.assign(weight)
        return
    for one in _nested(optimizer):
        for name in {"slow", "average"} & set(one.get_slot_names()):
            for weight in weights:
                one.get_slot(weight, name).assign(weight)


def state_of(optimizer) -> list[tf.Variable]:
    """All that a built optimizer remembers: the count of its steps, moments and the like."""
    if not is_legacy(optimizer):
        return raw_variables(optimizer.variables)
    # One that wraps another shares its count of steps with it.
    return list({id(variable): variable for variable in optimizer.weights}.values())


def remembers_all(kind: type) -> bool:
    """Whether all that a class's optimizers remember is in variables; not so Keras 2's Nadam."""
    return kind.__module__.endswith("legacy.nadam") or not (
        kind.__name__ == "Nadam" and keras.__version__.startswith("2.")
    )


def place_of(optimizer, variable) -> int:
    """Where an optimizer that is not legacy keeps what it remembers of a variable in its lists."""
    if hasattr(optimizer, "_get_variable_index"):
        return optimizer._get_variable_index(variable)
    return optimizer._index_dict[optimizer._var_key(variable)]  # Keras 2


def apply_reduced(optimizer, gradients: Iterable, variables: Iterable) -> None:
    """Applies gradients that are already summed over the replicas; in replica context.

    Keras sums them once more where it is not told not to, which is as much traffic again.
    """
    pairs = zip(gradients, variables)
    if is_legacy(optimizer):
        optimizer.apply_gradients(pairs, experimental_aggregate_gradients=False)
    elif "skip_gradients_aggregation" in inspect.signature(optimizer.apply_gradients).parameters:
        optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)  # Keras 2
    else:
        optimizer._all_reduce_sum_gradients = lambda reduced: reduced
        optimizer.apply_gradients(pairs)


def own_averages(optimizer, weights: Sequence[tf.Variable]) -> list | None:
    """The averages of the weights that an optimizer keeps; None for one that keeps none.

    Keras's optimizers with `use_ema = True` do, and tensorflow-addons' `MovingAverage` and `SWA`.
    Until `SWA` has begun these are the weights.
    """
    if not is_legacy(optimizer):
        own = optimizer._model_variables_moving_average if optimizer.use_ema else None
        return own and raw_variables(own)
    if hasattr(optimizer, "assign_average_vars"):
        averages = [optimizer.get_slot(weight, "average") for weight in weights]
        if not hasattr(optimizer, "start_averaging"):
            return averages
        begun = optimizer.iterations > tf.cast(optimizer.start_averaging, tf.int64)
        return [tf.where(begun, average, w) for average, w in zip(averages, weights)]
    within = _nested(optimizer)[1:]
    return own_averages(within[0], weights) if within else None


def _nested(optimizer) -> list:
    """A legacy optimizer, and those that it wraps, from the outside in."""
    inner = getattr(optimizer, "_optimizer", None)
    return [optimizer, *(_nested(inner) if inner is not None else [])]
