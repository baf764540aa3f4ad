"""TPU slices by name, and what a machine without a TPU must say before libtpu is loaded."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from dataclasses import dataclass, field

from bdm_tf.system.errors import UserError

_INSTALL = 'pip install "bdm_tf[tpu_check]"'


@dataclass(frozen=True)
class Chip:
    """What Google publishes of a chip; all its TensorCores work as one device.

    Attributes:
        axes: of its torus.
        hbm: bytes.
        peak_flops: a second, in bfloat16.
        bandwidth: of the HBM, bytes a second.
        clock: of the TensorCores, Hz: `peak_flops` over what their matrix units do in a cycle; None
            where the figures published contradict the compiler's.
        slices: some that there are.
        options: what libtpu must be told to take the chip as one device.
    """

    axes: int
    hbm: int
    peak_flops: float
    bandwidth: float
    clock: float | None
    slices: str
    options: dict = field(default_factory=dict)


_FLAT = "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"
_DEEP = "2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4, 4x4x8"
CHIPS = {
    "v4": Chip(
        3, 32 * 2**30, 275e12, 1.2e12, 1.05e9, _DEEP, options={"chip_config_name": "megacore"}
    ),
    "v5e": Chip(2, 16 * 2**30, 197e12, 0.819e12, 1.5e9, _FLAT),
    "v5p": Chip(3, 95 * 2**30, 459e12, 2.765e12, 1.75e9, _DEEP),
    "v6e": Chip(2, 32 * 2**30, 918e12, 1.638e12, None, _FLAT),
}


@dataclass(frozen=True)
class Topology:
    """A slice: so many chips of a kind."""

    name: str
    chip: Chip
    num_chips: int

    @property
    def options(self) -> dict:
        """What libtpu must be told besides the name."""
        one_chip = {"chips_per_host_bounds": [1, 1, 1]} if self.num_chips == 1 else {}
        return {**self.chip.options, **one_chip}


def parse_topology(name: str) -> Topology:
    """The slice of a name such as "v5e:2x4" or "v4:2x2x1".

    Raises:
        UserError: it is no such name.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    chip = CHIPS.get(found[1]) if found else None
    sizes = [int(size) for size in found[2].split("x")] if found else []
    if chip is None or len(sizes) != chip.axes or not all(sizes):
        raise UserError(
            f"--topology={name} must be a chip ({', '.join(CHIPS)}) and its grid: v5e:2x4, "
            "v6e:2x2, v4:2x2x1, v5p:2x2x2"
        )
    return Topology(name, chip, math.prod(sizes))


def prepare_environment() -> None:
    """Sets what libtpu reads when it is loaded; to be called before TensorFlow is imported.

    Without it, `tensorflow-tpu` asks a metadata server for minutes.

    Raises:
        UserError: the compiler is not installed.
    """
    missing = [name for name in ("jax", "libtpu") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the TPU compiler needs {' and '.join(missing)}, on Python 3.11 or newer: {_INSTALL}"
        )
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_WORKER_ID="0",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # the compiler runs in a process of its own
        JAX_PLATFORMS="cpu",
    )
