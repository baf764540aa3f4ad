"""`python -m bdm_tf.tpu_check.compiling TOPOLOGY OPTIONS [MODULE.mlir ALIASES.json REPORT.json]`.

Without a module it only asks for the slice, and fails if there is no such one.

The TPU compiler, called through JAX's runtime in a process of its own: it ends the process that it
fails in, and cannot share one with tensorflow-tpu. Imports no TensorFlow.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

from bdm_tf.stablehlo.running import compile_options, parsed


def devices(topology: str, options: dict) -> list:
    """The devices of a slice, one for a chip.

    Args:
        topology: a name such as "v5e:2x4".
        options: what libtpu must be told besides.

    Raises:
        RuntimeError: there is no such slice.
    """
    from jax.experimental import topologies

    described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    return list(described.devices)


def compile_for_tpu(text: str, aliases: list[list[int]], device: Any) -> dict:
    """Compiles StableHLO for one device.

    Args:
        text: the module.
        aliases: `[output, argument]` pairs, an output that takes an argument's memory.
        device: of `devices`.

    Returns:
        "seconds" and "cpu_seconds" (of all threads), "memory" (bytes by kind), "flops" and
        "bytes_accessed" as the compiler counts them, and "hlo", the optimised program; or "error"
        after so many seconds.
    """
    from jax._src.lib import xla_client

    module, executors = parsed(text, aliases), xla_client.DeviceList((device,))
    began, began_cpu = time.monotonic(), _cpu_seconds()
    try:
        program = device.client.compile(module, executors, compile_options())
    except Exception as error:  # whatever the compiler has to say is the result
        return {"error": str(error), "seconds": time.monotonic() - began}
    spent = {"seconds": time.monotonic() - began, "cpu_seconds": _cpu_seconds() - began_cpu}
    memory = program.get_compiled_memory_stats()
    cost = program.cost_analysis()
    return {
        **spent,
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


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(
    topology: str, options: str, module: str = "", aliases: str = "", report: str = ""
) -> None:
    device = devices(topology, json.loads(options))[0]
    if not module:
        return
    with open(module) as file:
        text = file.read()
    with open(aliases) as file:
        pairs = json.load(file)
    found = compile_for_tpu(text, pairs, device)
    with open(report, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
