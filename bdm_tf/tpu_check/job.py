"""`check`: lower, compile, report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time

import tensorflow as tf

from bdm_tf.stablehlo.lowering import Module, Problem, Uncompilable, lower, lowered_for
from bdm_tf.stablehlo.steps import build, setting, use_defaults
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import check_writable, write_atomically
from bdm_tf.tpu_check.cost import cycles, forward_flops
from bdm_tf.tpu_check.topology import Topology

# As libtpu 0.0.30 says it, and 0.0.52.
_MEMORY = re.compile(
    r"Ran out of memory.*?(?:Used ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) hbm"
    r"|\(([\d.]+[KMGT]?)\) exceeds available HBM \(([\d.]+[KMGT]?)\))",
    re.DOTALL,
)
_LESS_MEMORY = (
    "take more chips, a smaller --batch_size, train.accumulation_steps = 2 or more, UNet.remat = "
    "True, or UNet.dtype = 'mixed_bfloat16'"
)


def check(
    what: str,
    topology: Topology,
    *,
    batch_size: int | None = None,
    image_shape: tuple[int, ...] | None = None,
    output: str | None = None,
) -> bool:
    """Finds out what a TPU makes of gin's current configuration; prints it and writes `output`.

    Args:
        what: "train" or "sample".
        topology: the slice.
        batch_size: images over all chips; None is `train.batch_size`.
        image_shape: `(H, W, C)`; None asks the data source.
        output: path of a JSON file; None writes none.

    Returns:
        Whether the step compiles and fits.

    Raises:
        UserError: the configuration cannot be used, there is no such slice, or the compiler cannot
            be run.
    """
    check_writable(output)
    check_slice(topology)
    shape = use_defaults(image_shape)
    batch_size = batch_size or int(setting("batch_size"))
    model, (function, specs) = build(what, batch_size, topology.num_chips)
    per_core = batch_size // topology.num_chips
    report = {
        "what": what,
        "topology": topology.name,
        "chips": topology.num_chips,
        "batch_size": batch_size,
        "batch_size_per_core": per_core,
        "image_shape": list(shape),
        "parameters": sum(v.shape.num_elements() for v in model.network.trainable_variables),
        "lowered_for": lowered_for(),
        "tensorflow": tf.__version__,
        "left_out": "the sum over the cores",
    }
    began = time.monotonic()
    try:
        module = lower(function, specs)
    except Uncompilable as error:
        report |= {"compiles": False, "problem": vars(error.problem)}
    else:
        report |= {"lowering_seconds": round(time.monotonic() - began, 1)}
        report |= {"program_bytes": len(module.text)}
        print(f"lowered in {report['lowering_seconds']} s; compiling", flush=True)
        report |= judged(compiled(module, topology), topology)
    if report["compiles"]:
        passes = 3 if what == "train" else 1  # forward; and the gradients of inputs and weights
        parts = int(setting("accumulation_steps")) if what == "train" else 1
        report["analytic_flops"] = passes * per_core * forward_flops(model.network, shape)
        report |= compared(report, parts, topology)
    print(table(report))
    if output:
        write_atomically(output, json.dumps(report, indent=2) + "\n")
        print(f"wrote {output}")
    return report["compiles"] and report["fits"]


def check_slice(topology: Topology) -> None:
    """Asks the compiler for the slice, which takes seconds; lowering can take minutes.

    Raises:
        UserError: there is no such slice.
    """
    process = _compiler(topology)
    if process.returncode:
        says = process.stderr.strip().splitlines() or ["nothing"]
        raise UserError(
            f"--topology={topology.name} is no slice that the TPU compiler knows; take one of "
            f"{topology.chip.slices}. It says: {says[-1]}"
        )


def _compiler(topology: Topology, *paths: str) -> subprocess.CompletedProcess:
    arguments = [topology.name, json.dumps(topology.options), *paths]
    command = [sys.executable, "-m", "bdm_tf.tpu_check.compiling", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def compiled(module: Module, topology: Topology) -> dict:
    """What the compiler's own process reports of a module.

    Raises:
        UserError: it reports nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("m.mlir", "aliases.json", "report.json")]
        for path, content in zip(paths, (module.text, json.dumps(module.aliases))):
            with open(path, "w") as file:
                file.write(content)
        process = _compiler(topology, *paths)
        if process.returncode:
            last = process.stderr.strip().splitlines()[-3:]
            raise UserError("the TPU compiler ended without a result: " + " / ".join(last))
        with open(paths[2]) as file:
            return json.load(file)


def judged(found: dict, topology: Topology) -> dict:
    """What a report says of the compiler's result."""
    error = found.get("error")
    if error is not None:
        memory = _MEMORY.search(error)
        reason = error.strip().splitlines()[0][:300]
        if memory:
            needed, available = filter(None, memory.groups())
            reason = f"it needs {needed} of HBM, the chip has {available}"
        way_out = _LESS_MEMORY if memory else "see the compiler's message"
        problem = Problem("", "", "", reason, way_out)
        return {"compiles": False, "problem": vars(problem), "message": error[:4000]}
    kinds = found["memory"]
    hbm = sum(kinds[k] for k in ("arguments", "outputs", "temporaries", "code")) - kinds["aliased"]
    return {
        "compiles": True,
        "compile_seconds": round(found["seconds"], 1),
        "compile_cpu_seconds": round(found["cpu_seconds"], 1),
        "memory": kinds,
        "hbm": hbm,
        "hbm_of_chip": topology.chip.hbm,
        "fits": hbm <= topology.chip.hbm,
        "flops": found["flops"],
        "bytes_accessed": found["bytes_accessed"],
        "flops_per_byte": found["flops"] / found["bytes_accessed"],
        "cycles": cycles(found["hlo"]),
    }


def compared(report: dict, parts: int, topology: Topology) -> dict:
    """What follows from a report's counts.

    Args:
        report: with "flops", "bytes_accessed", "analytic_flops" and "cycles".
        parts: one after the other. The compiler's FLOPs and bytes are those of one and of what
            follows them all; the cycles are of the whole step.
        topology: the slice.

    Returns:
        "parts_per_step"; "flops_to_analytic", of one part; "not_matrix_share", of the cycles; and
        "estimated_seconds" of a step by "flops", "bytes" and "cycles", with the chip at its best in
        each, and "step", the largest.
    """
    chip, used = topology.chip, report["cycles"]
    seconds = {
        "flops": parts * report["flops"] / chip.peak_flops,
        "bytes": parts * report["bytes_accessed"] / chip.bandwidth,
    }
    if chip.clock is not None:
        seconds["cycles"] = used["total"] / chip.clock
    return {
        "parts_per_step": parts,
        "flops_to_analytic": parts * report["flops"] / report["analytic_flops"],
        "not_matrix_share": 1 - used["matrix_unit"] / used["total"],
        "estimated_seconds": seconds | {"step": max(seconds.values())},
    }


def table(report: dict) -> str:
    """A report for people."""
    head = (
        f"{report['what']} step of {report['parameters']:,} parameters, {report['topology']}, "
        f"{report['batch_size_per_core']} of {report['batch_size']} images a core, lowered for "
        f"{report['lowered_for']} by TensorFlow {report['tensorflow']}"
    )
    if not report["compiles"]:
        problem = report["problem"]
        what = " ".join(filter(None, (problem["operation"], problem["name"])))
        where = f" ({problem['where']})" if problem["where"] else ""
        found = ": ".join(filter(None, (what + where, problem["reason"])))
        return f"{head}\nDOES NOT COMPILE: {found}\n{problem['way_out']}"
    memory, used, parts = report["memory"], report["cycles"], report["parts_per_step"]
    of_one = f", one of {parts} parts" if parts > 1 else ""
    seconds = dict(report["estimated_seconds"])
    longest = seconds.pop("step")
    lines = {
        "compiles": f"in {report['compile_seconds']:.0f} s, "
        f"{report['compile_cpu_seconds']:.0f} s of CPU",
        "HBM": f"{_gib(report['hbm'])} of {_gib(report['hbm_of_chip'])}: "
        + ", ".join(f"{name} {_gib(size)}" for name, size in memory.items()),
        "FLOPs": f"{report['flops']:.4g} by the compiler, "
        f"{report['analytic_flops'] / parts:.4g} analytic ({report['flops_to_analytic']:.2f})"
        + of_one,
        "moved": f"{report['bytes_accessed']:.4g} bytes, "
        f"{report['flops_per_byte']:.0f} FLOPs a byte{of_one}",
        "cycles": f"{used['total']:,} estimated, {report['not_matrix_share']:.0%} not in "
        "convolutions and matrix products",
        "time": f"{1000 * longest:.3g} ms at best, an estimate: "
        + ", ".join(f"{1000 * s:.3g} ms by {name}" for name, s in seconds.items()),
        "others": ", ".join(f"{k} {v:,}" for k, v in list(used["other_by_kind"].items())[:4]),
        "dearest": ", ".join(f"{k} {v:,}" for k, v in list(used["dearest_others"].items())[:4]),
    }
    if not report["fits"]:
        lines["DOES NOT FIT"] = _LESS_MEMORY
    return "\n".join([head, *(f"  {name:<9} {text}" for name, text in lines.items())])


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
