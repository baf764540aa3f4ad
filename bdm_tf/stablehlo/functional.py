"""A function that reads and writes variables, as one that takes and returns their values.

TensorFlow lowers for a device that is not there only what holds no variables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from bdm_tf.networks.fused_norm import for_accelerators
from bdm_tf.system.errors import UserError

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_LOOPS = ("While", "StatelessWhile")
_BRANCHES = ("If", "StatelessIf")
Library = dict[str, Any]  # FunctionDefs by name


@dataclass(frozen=True)
class Pure:
    """A function without variables.

    Attributes:
        function: takes `specs` and returns the original's results, then the values written.
        specs: of the original's arguments, then of each variable.
        num_arguments: how many of `specs` are the original's.
        num_results: how many of its results come before the values written.
        aliases: for each value written, in order, the number of the argument that it replaces.
        operations: the original's operations by name, to say where one was written.
        handles: of the variables whose values the last of `specs` are.
    """

    function: Any
    specs: list[tf.TensorSpec]
    num_arguments: int
    num_results: int
    aliases: list[int]
    operations: dict[str, tf.Operation]
    handles: list[tf.Tensor]


class _Cell:
    """A variable while its function is replayed: the value that it has now."""

    def __init__(self, value: tf.Tensor):
        self.value, self.written = value, False

    def write(self, value: tf.Tensor) -> None:
        self.value, self.written = value, True


def pure(function: Callable, specs: Sequence[tf.TensorSpec]) -> Pure:
    """Rewrites a function of tensors whose graph reads and writes variables.

    The graph is TensorFlow's own, replayed operation by operation in the order it was made in;
    only operations on variables are put in terms of values. Loops and branches may read variables,
    not write them.

    Raises:
        UserError: an operation on a variable is not known here.
    """
    with for_accelerators():
        concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    captured = concrete.captured_inputs
    handles = [c for c in captured if c.dtype == tf.resource]
    state = [_held(c) for c in handles]
    outputs = concrete.graph.outputs
    library = {f.signature.name: f for f in concrete.graph.as_graph_def().library.function}
    for name, definition in library.items():
        if not context.context().has_function(name):
            context.context().add_function_def(definition)
    written: list[int] = []

    def replayed(*values):
        arguments, cells = values[: len(specs)], [_Cell(v) for v in values[len(specs) :]]
        remaining = iter(cells)
        inputs = [
            # What is captured would be an argument that nobody hands over.
            next(remaining) if c.dtype == tf.resource else tf.constant(c.numpy())
            for c in captured
        ]
        results = _replay(concrete.graph, [*arguments, *inputs], library)
        written[:] = [i for i, cell in enumerate(cells) if cell.written]
        return [*results, *(cells[i].value for i in written)]

    compiled = tf.function(replayed, jit_compile=True, autograph=False)
    compiled.get_concrete_function(*specs, *state)  # which fills `written`
    return Pure(
        function=compiled,
        specs=[*specs, *state],
        num_arguments=len(specs),
        num_results=len(outputs),
        aliases=[len(specs) + i for i in written],
        operations={op.name: op for op in concrete.graph.get_operations()},
        handles=handles,
    )


def repeated(
    one: Pure, num_steps: int, arguments: Callable, specs: Sequence[tf.TensorSpec]
) -> Pure:
    """Many steps in one call, each with the values that the one before it wrote.

    Args:
        one: a step.
        num_steps: how many.
        arguments: makes the arguments of step i of `[i, *arguments of the whole]`, i int32.
        specs: of the arguments of the whole.

    Returns:
        A function with the results of `one`, each stacked over the steps.
    """
    places = [place - one.num_arguments for place in one.aliases]
    stacked = one.function.get_concrete_function(*one.specs).structured_outputs[: one.num_results]

    def many(*values):
        given, state = values[: len(specs)], values[len(specs) :]
        records = [tf.TensorArray(r.dtype, size=num_steps, element_shape=r.shape) for r in stacked]

        def step(i, records, state):
            results = one.function(*arguments(i, *given), *state)
            records = [r.write(i, x) for r, x in zip(records, results)]
            state = list(state)
            for place, value in zip(places, results[one.num_results :]):
                state[place] = value
            return i + 1, records, state

        _, records, state = tf.while_loop(
            lambda i, *_: i < num_steps,
            step,
            [tf.constant(0), records, list(state)],
            maximum_iterations=num_steps,
        )
        return [*(r.stack() for r in records), *(state[place] for place in places)]

    return replace(
        one,
        function=tf.function(many, jit_compile=True, autograph=False),
        specs=[*specs, *one.specs[one.num_arguments :]],
        num_arguments=len(specs),
        aliases=[len(specs) + place for place in places],
    )


def _held(handle: tf.Tensor) -> tf.TensorSpec:
    """What the variable behind a handle holds."""
    held = handle._handle_data.shape_and_type[0]
    return tf.TensorSpec(tf.TensorShape(held.shape), tf.as_dtype(held.dtype))


def _replay(graph, inputs: Sequence, library: Library) -> list:
    """Puts a graph's operations into the current one; `inputs` are tensors or cells."""
    now = {id(tensor): value for tensor, value in zip(graph.inputs, inputs)}
    for op in graph.get_operations():
        if op.type == "NoOp" or (op.outputs and id(op.outputs[0]) in now):
            continue
        given = [now[id(tensor)] for tensor in op.inputs]
        results: Sequence
        if any(isinstance(value, _Cell) for value in given):
            with tf.name_scope("on_variables"):  # no name that a copy needs
                results = _on_cells(op, given, library)
        else:
            results = _copy(op, given)
        now.update((id(tensor), value) for tensor, value in zip(op.outputs, results))
    return [now[id(tensor)] for tensor in graph.outputs]


def _on_cells(op: tf.Operation, given: list, library: Library) -> list:
    if op.type in _CALLS:
        return _replay(_function(op, "f", library), given, library)
    if op.type in _LOOPS:
        return _loop(op, given, library)
    if op.type in _BRANCHES:
        return _branch(op, given, library)
    if op.type not in _ON_VARIABLES:
        raise UserError(f"no way is known to lower {op.type} ({op.name}) on a variable")
    return _ON_VARIABLES[op.type](op, *given)


def _copy(op: tf.Operation, inputs: list[tf.Tensor]) -> Sequence[tf.Tensor]:
    graph = tf.compat.v1.get_default_graph()
    copy = graph.create_op(
        op.type,
        inputs,
        [tensor.dtype for tensor in op.outputs],
        name=op.name,
        attrs=dict(op.node_def.attr),
    )
    for ours, original in zip(copy.outputs, op.outputs):
        if ours.dtype != tf.variant:
            ours.set_shape(original.shape)
    return copy.outputs


def _function(op: tf.Operation, attribute: str, library: Library, first: int = 0):
    """The graph of a function that an operation calls with its inputs from the first on."""
    name = op.get_attr(attribute).name
    shapes = [None if t.dtype == tf.resource else t.shape for t in op.inputs[first:]]
    definition = library[name]
    with tf.init_scope():  # where the functions that it calls are known
        return function_def_to_graph(definition, input_shapes=shapes)


@contextmanager
def _read_alone(op: tf.Operation, given: list):
    """Refuses what writes a variable within a loop or a branch."""
    cells = [value for value in given if isinstance(value, _Cell)]
    before = [cell.written for cell in cells]
    for cell in cells:
        cell.written = False
    yield
    if any(cell.written for cell in cells):
        raise UserError(f"no way is known to lower {op.type} ({op.name}), which writes a variable")
    for cell, flag in zip(cells, before):
        cell.written = flag


def _loop(op: tf.Operation, given: list, library: Library) -> list:
    condition, body = (_function(op, part, library) for part in ("cond", "body"))
    places = [i for i, value in enumerate(given) if not isinstance(value, _Cell)]

    def filled(values):
        whole = list(given)
        for place, value in zip(places, values):
            whole[place] = value
        return whole

    def go_on(*values):
        return _replay(condition, filled(values), library)[0]

    def once(*values):
        results = _replay(body, filled(values), library)
        return [results[place] for place in places]

    with _read_alone(op, given):
        results = tf.while_loop(go_on, once, [given[place] for place in places])
    return filled(results)


def _branch(op: tf.Operation, given: list, library: Library) -> list:
    is_true, *values = given

    def replayed(branch):
        function = _function(op, branch, library, first=1)

        def results():
            with _read_alone(op, values):
                return _replay(function, values, library)

        return results

    return tf.cond(is_true, replayed("then_branch"), replayed("else_branch"))


def _read(op, cell):
    return [tf.identity(cell.value)]


def _gather(op, cell, places):
    return [tf.gather(cell.value, places, batch_dims=op.get_attr("batch_dims"))]


def _assign(op, cell, value):
    cell.write(value)
    return []


def _assign_add(op, cell, value):
    cell.write(cell.value + value)
    return []


def _assign_sub(op, cell, value):
    cell.write(cell.value - value)
    return []


def _descend(op, cell, rate, difference):
    cell.write(cell.value - rate * difference)
    return []


def _adam(op, var, m, v, beta1_power, beta2_power, lr, beta1, beta2, epsilon, grad):
    """TensorFlow's own lowering of `ResourceApplyAdam`, without Nesterov's momentum."""
    alpha = lr * tf.sqrt(1.0 - beta2_power) / (1.0 - beta1_power)
    m.write(m.value + (grad - m.value) * (1.0 - beta1))
    v.write(v.value + (tf.square(grad) - v.value) * (1.0 - beta2))
    var.write(var.value - m.value * alpha / (tf.sqrt(v.value) + epsilon))
    return []


_ON_VARIABLES: dict[str, Callable] = {
    "ReadVariableOp": _read,
    "ResourceGather": _gather,
    "AssignVariableOp": _assign,
    "AssignAddVariableOp": _assign_add,
    "AssignSubVariableOp": _assign_sub,
    "ResourceApplyAdam": _adam,
    "ResourceApplyGradientDescent": _descend,
}
