"""`python -m bdm_tf.tpu_check.compiling MODULE.mlir ALIASES.json TOPOLOGY REPORT.json`.

The TPU compiler, called through JAX's runtime in a process of its own: it ends the process that it
fails in, and cannot share one with tensorflow-tpu. Imports no TensorFlow.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def compile_for_tpu(text: str, aliases: list[list[int]], topology: str) -> dict:
    """Compiles StableHLO for one core of a slice.

    Args:
        text: the module.
        aliases: `[output, argument]` pairs, an output that takes an argument's memory.
        topology: a name such as "v5e:2x4".

    Returns:
        "seconds", "memory" (bytes by kind), "flops" and "bytes_accessed" as the compiler counts
        them, and "hlo", the optimised program; or "error".
    """
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jax.experimental import topologies
    from jaxlib.mlir import ir

    described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    device: Any = described.devices[0]
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        main = next(f for f in module.body.operations if f.name.value == "main")
        attributes = (
            list(main.arg_attrs)
            if "arg_attrs" in main.attributes
            else [ir.DictAttr.get({}) for _ in main.arguments]
        )
        for output, argument in aliases:
            place = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), output)
            attributes[argument] = ir.DictAttr.get({"tf.aliasing_output": place})
        main.attributes["arg_attrs"] = ir.ArrayAttr.get(attributes)
        options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
        began = time.monotonic()
        try:
            program = device.client.compile(module, xla_client.DeviceList((device,)), options)
        except Exception as error:  # whatever the compiler has to say is the result
            return {"error": str(error), "seconds": time.monotonic() - began}
    memory = program.get_compiled_memory_stats()
    cost = program.cost_analysis()
    return {
        "seconds": time.monotonic() - began,
        "devices": len(described.devices),
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "aliased": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
        },
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "hlo": program.hlo_modules()[0].to_string(),
    }


def main(module: str, aliases: str, topology: str, report: str) -> None:
    with open(module) as file:
        text = file.read()
    with open(aliases) as file:
        pairs = json.load(file)
    found = compile_for_tpu(text, pairs, topology)
    with open(report, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
