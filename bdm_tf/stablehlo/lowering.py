"""From a function with variables to StableHLO, or to the operation that a TPU does not have."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from bdm_tf.stablehlo.functional import Pure, pure
from bdm_tf.system.errors import UserError

_LIBRARIES = tuple(os.path.dirname(m.__file__) + os.sep for m in (tf, keras)) + (
    os.path.dirname(__file__) + os.sep,
)
# A CPU's lowering holds copies, which have no name in StableHLO.
_COPY = re.compile(
    r'"?mhlo\.copy"?\(? *(%[\w.#]+) *\)?(?: *\{[^}]*\})? *: *'
    r"(?:\((tensor<[^>]*>)\) -> tensor<[^>]*>|(tensor<[^>]*>))"
)
_NODE = re.compile(r"\{\{node ([^}]+)\}\}")
_UNSUPPORTED = re.compile(r"unsupported operations .*?: (\w+) \(No registered", re.DOTALL)
_NOT_CONSTANT = re.compile(r"must be a compile-time constant|compile-time constant")
_DYNAMIC = re.compile(r"tensor<(?:\d+x)*\?|stablehlo\.bounds")
_STATIC_WAY_OUT = (
    "a TPU's shapes are known when it compiles: mask with tf.where in place of tf.boolean_mask, "
    "take sizes from x.shape, and pad batches to one size"
)
_WAYS_OUT = {
    name: "Python on the host cannot be part of a TPU's step: write it in TensorFlow's operations, "
    "or move it into the input pipeline"
    for name in ("EagerPyFunc", "PyFunc", "PyFuncStateless")
}


@dataclass(frozen=True)
class Problem:
    """Why a step does not compile.

    Attributes:
        operation: the first operation that does not; "" if the compiler names none.
        name: its name in the graph.
        where: the line that made it.
        reason: in words.
        way_out: what to do about it.
    """

    operation: str
    name: str
    where: str
    reason: str
    way_out: str


@dataclass(frozen=True)
class Module:
    """A lowered function.

    Attributes:
        text: StableHLO.
        aliases: `[output, argument]`, what takes whose place: the variables.
    """

    text: str
    aliases: list[list[int]]


class Uncompilable(Exception):
    """A step that a TPU does not take; `problem` says why."""

    def __init__(self, problem: Problem):
        super().__init__(problem.reason)
        self.problem = problem


def lowered_for() -> str:
    """The platform whose lowering there is: "TPU" with tensorflow-tpu, else "CPU"."""
    suppliers = importlib.metadata.packages_distributions().get("tensorflow", [])
    return "TPU" if {"tensorflow-tpu", "tensorflow_tpu"} & set(suppliers) else "CPU"


def lower(function: Callable, specs: Sequence[tf.TensorSpec]) -> Module:
    """Lowers a function of tensors, whose graph may read and write variables.

    The module takes the values of the variables after the function's own arguments, and returns
    those that it writes after the function's own results.

    Raises:
        Uncompilable: it cannot be lowered, or has a shape that is not static.
        UserError: this TensorFlow has no StableHLO.
    """
    return lower_pure(pure(function, specs))


def lower_pure(rewritten: Pure) -> Module:
    """`lower` for what has been put in terms of values already."""
    platform = lowered_for()
    options = {"platform_name": "TPU"} if platform == "TPU" else {}
    try:
        generate = rewritten.function.experimental_get_compiler_ir(*rewritten.specs)
        text = generate(stage="stablehlo", **options)
    except (ValueError, tf.errors.OpError) as error:
        if "Invalid stage" in str(error):
            raise UserError(
                f"TensorFlow {tf.__version__} does not tell its programs in StableHLO: take a "
                "later one for this, for instance 2.21"
            ) from error
        raise Uncompilable(_problem(str(error), rewritten.operations)) from error
    if platform == "CPU":
        text = _COPY.sub(
            lambda m: f"stablehlo.reshape {m[1]} : ({m[2] or m[3]}) -> {m[2] or m[3]}", text
        )
    _check_static(text, rewritten.operations)
    first = rewritten.num_results
    return Module(text, [[first + i, a] for i, a in enumerate(rewritten.aliases)])


def _problem(message: str, operations: Mapping[str, tf.Operation]) -> Problem:
    """What TensorFlow's bridge to XLA says, in the terms of the step's own code."""
    node = _NODE.search(message)
    name = node[1].removeprefix("on_variables/") if node else ""
    op = operations.get(name)
    unsupported = _UNSUPPORTED.search(message)
    kind = unsupported[1] if unsupported else (op.type if op is not None else "")
    if _NOT_CONSTANT.search(message):
        reason, way_out = "its shape or size depends on the data", _STATIC_WAY_OUT
    elif unsupported:
        reason = "there is no such operation on a TPU"
        way_out = _WAYS_OUT.get(kind, "put it in terms of other operations of TensorFlow")
    else:
        reason = message.strip().splitlines()[0][:300]
        way_out = "see TensorFlow's message"
    return Problem(kind, name, _made_at(op), reason, way_out)


def _check_static(text: str, operations: Mapping[str, tf.Operation]) -> None:
    if not _DYNAMIC.search(text):
        return
    line = next(line for line in text.splitlines() if _DYNAMIC.search(line) and "=" in line)
    name = _location(line, text)
    op = operations.get(name)
    found = re.search(r"stablehlo\.(\w+)", line)
    kind = op.type if op is not None else (found[1] if found else "")
    reason = "its shape depends on the data"
    raise Uncompilable(Problem(kind, name, _made_at(op), reason, _STATIC_WAY_OUT))


def _location(line: str, text: str) -> str:
    """The name of the operation that a line of MLIR was made from, "" if there is none."""
    reference = re.search(r"loc\((#loc\d*)\)\s*$", line)
    while reference:
        definition = re.search(rf"^{reference[1]} = loc\((.*)\)$", text, re.MULTILINE)
        if definition is None:
            return ""
        name = re.search(r'"([^"]+)"', definition[1])
        if name and not name[1].startswith("/"):
            return name[1]
        reference = re.search(r"(#loc\d+)", definition[1])
    return ""


def _made_at(op: tf.Operation | None) -> str:
    """The innermost line outside TensorFlow and Keras that made an operation."""
    if op is None:
        return ""
    frames = [f for f in op.traceback if not f.filename.startswith(_LIBRARIES)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
