"""Runs StableHLO with JAX's runtime, where there is no TensorFlow. Imports none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def parsed(text: str, aliases: Sequence[Sequence[int]]):
    """A module of JAX's MLIR, in which some results take the memory of arguments.

    Args:
        text: StableHLO.
        aliases: `[result, argument]` pairs.
    """
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir

    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        main = next(f for f in module.body.operations if f.name.value == "main")
        attributes = (
            list(main.arg_attrs)
            if "arg_attrs" in main.attributes
            else [ir.DictAttr.get({}) for _ in main.arguments]
        )
        for result, argument in aliases:
            place = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), result)
            attributes[argument] = ir.DictAttr.get({"tf.aliasing_output": place})
        main.attributes["arg_attrs"] = ir.ArrayAttr.get(attributes)
        return module


def compile_options():
    """For one device."""
    from jax._src import compiler

    return compiler.get_compile_options(num_replicas=1, num_partitions=1)


class Program:
    """A compiled program whose last arguments are the values of variables.

    Args:
        text: StableHLO.
        aliases: `[result, argument]` pairs; these results are what the variables become.
        variables: the names of the last arguments, in order.
        num_arguments: how many come before them.
        device: of JAX.
    """

    def __init__(
        self,
        text: str,
        *,
        aliases: Sequence[Sequence[int]],
        variables: Sequence[str],
        num_arguments: int,
        device: Any,
    ):
        from jax._src.lib import xla_client

        self._variables = list(variables)
        self._written = {result: variables[place - num_arguments] for result, place in aliases}
        self._program = device.client.compile_and_load(
            parsed(text, aliases), xla_client.DeviceList((device,)), compile_options()
        )

    def __call__(self, arguments: Sequence, state: dict[str, Any]) -> list:
        """Runs it and puts what the variables become into `state`.

        Args:
            arguments: JAX arrays on the device.
            state: JAX arrays by name; those that are written give up their memory.

        Returns:
            The other results, JAX arrays that may still be under way.
        """
        given = [*arguments, *(state[name] for name in self._variables)]
        run = self._program.execute_sharded(given)
        results = []
        for place, (value,) in enumerate(run.disassemble_into_single_device_arrays()):
            if place in self._written:
                state[self._written[place]] = value
            else:
                results.append(value)
        return results
