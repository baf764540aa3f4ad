"""What a step costs: analytic FLOPs of a network, and where a compiled program's cycles go."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import tensorflow as tf

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_LOOP = re.compile(r"\bwhile\(.*condition=%?([\w.\-]+)")
_LOOP_PARTS = re.compile(r"(?:body|condition)=%?([\w.\-]+)")
_LESS = re.compile(r"ROOT .*compare\(.*%([\w.\-]+)\), direction=LT")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.\-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_MATRIX_UNIT = re.compile(r"\b(?:convolution|dot)\(")
_OPERATION = re.compile(r'op_name="([^"]*)"')
_KIND = re.compile(r"= .*? ([\w\-]+)\(")


def forward_flops(network, image_shape: Sequence[int]) -> int:
    """FLOPs of a network's convolutions and matrix products for one image, by their definition.

    A multiplication and an addition are two; taps outside the image count.
    """

    @tf.function(autograph=False)
    def forward(z_t, t):
        return network(z_t, t)

    specs = tf.TensorSpec([1, *image_shape], tf.float32), tf.TensorSpec([1], tf.float32)
    graph = forward.get_concrete_function(*specs).graph
    graphs = [graph, *(f.graph for f in getattr(graph, "_functions", {}).values() if f.graph)]
    return sum(_flops(op) for g in graphs for op in g.get_operations())


def _flops(op: tf.Operation) -> int:
    if op.type == "Conv2D":
        height, width, channels, _ = op.inputs[1].shape
        return 2 * math.prod(op.outputs[0].shape) * height * width * channels
    if op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2"):
        transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
        length = op.inputs[0].shape[-2 if transposed else -1]
        return 2 * math.prod(op.outputs[0].shape) * length
    return 0


def cycles(hlo: str, most: int = 8) -> dict:
    """Where the TPU compiler expects the cycles of a program to go.

    What a loop over `i < n` does counts n times, whatever another loop does once: a sampler's loop,
    which counts down, is one step.

    Args:
        hlo: the optimised program as text.
        most: how many of the dearest other operations are listed.

    Returns:
        "total", "loops" (how often each was counted), "matrix_unit" (in instructions with a
        convolution or a matrix product in them), "other_by_kind" (copies, fusions of other work,
        ...) and "dearest_others", the layers in whose name most of the others' cycles stand.
    """
    bodies = _computations(hlo)
    inside = {name for lines in bodies.values() for line in lines for name in _fused(line)}
    with_matrix_unit, times = _reaching(bodies), _times(bodies)
    total, matrix_unit = 0, 0
    kinds: Counter = Counter()
    names: Counter = Counter()
    for name, lines in bodies.items():
        if name in inside:
            continue
        for line in lines:
            found = _CYCLES.search(line)
            if not found:
                continue
            count = times[name] * int(found[1])
            total += count
            if _MATRIX_UNIT.search(line) or with_matrix_unit & set(_fused(line)):
                matrix_unit += count
                continue
            kind, operation = _KIND.search(line), _OPERATION.search(line)
            kinds[kind[1] if kind else "?"] += count
            names[_group(operation[1] if operation else "")] += count
    return {
        "total": total,
        "loops": [
            _trips(bodies[name]) for line in hlo.splitlines() for name in _LOOP.findall(line)
        ],
        "matrix_unit": matrix_unit,
        "other_by_kind": dict(kinds.most_common()),
        "dearest_others": dict(names.most_common(most)),
    }


def _group(operation: str) -> str:
    """The last parts of an operation's name, numbers left out: alike in all layers."""
    parts = [re.sub(r"_?\d+", "", part) for part in operation.split("/") if part]
    return "/".join(parts[-2:]) or "unnamed"


def _computations(hlo: str) -> dict[str, list[str]]:
    bodies: dict[str, list[str]] = defaultdict(list)
    now = None
    for line in hlo.splitlines():
        start = None if line.startswith(" ") else _COMPUTATION.match(line)
        if start:
            now = start[1]
        elif line.startswith("}"):
            now = None
        elif now is not None:
            bodies[now].append(line)
    return bodies


def _times(bodies: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs; callers stand below what they call."""
    times = dict.fromkeys(bodies, 1)
    for name in reversed(bodies):
        for line in bodies[name]:
            loop = _LOOP.search(line)
            if loop:
                trips = times[name] * _trips(bodies[loop[1]])
                times.update(dict.fromkeys(_LOOP_PARTS.findall(line), trips))
    return times


def _trips(condition: list[str]) -> int:
    """The n of a condition `i < n`, which TensorFlow's loops count from 0; 1 for any other."""
    limit = next(filter(None, map(_LESS.search, condition)), None)
    if limit is None:
        return 1
    constant = re.compile(rf"%{re.escape(limit[1])} = s32\[\]\S* constant\((\d+)\)")
    number = next(filter(None, map(constant.search, condition)), None)
    return int(number[1]) if number else 1


def _fused(line: str) -> Iterator[str]:
    yield from re.findall(r"calls=%?([\w.\-]+)", line)


def _reaching(bodies: dict[str, list[str]]) -> set[str]:
    """The computations with a convolution or matrix product in them, or in what they call."""
    calls = {n: {c for line in lines for c in _CALLED.findall(line)} for n, lines in bodies.items()}
    found = {n for n, lines in bodies.items() if any(map(_MATRIX_UNIT.search, lines))}
    while more := {n for n, called in calls.items() if n not in found and called & found}:
        found |= more
    return found
