"""Speed, memory and start beside PyTorch: the CIFAR-10 UNet of this library and that of diffusers.

python benchmarks/peers.py --peer_python=PYTHON_WITH_DIFFUSERS --output=peers.md

Each case runs in processes of their own, which take turns round by round; medians count. The peer
is the better of diffusers eager and, with --compiled, under torch.compile (minutes for each case),
channels_last in both. docs/speed.md has results.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

from absl import app, flags

from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.files import check_writable, write_atomically
from bdm_tf.system.paths import define_path

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = {
    "train_float32": {"task": "train", "dtype": "float32", "batch": 8},
    "train_bfloat16": {"task": "train", "dtype": "bfloat16", "batch": 8},
    "sample_float32": {"task": "sample", "dtype": "float32", "batch": 16},
    "sample_bfloat16": {"task": "sample", "dtype": "bfloat16", "batch": 16},
}
TITLES = {"train": "training step", "sample": "network evaluation while sampling"}

_CASES = flags.DEFINE_multi_enum("case", list(CASES), list(CASES), "What to measure.")
_WIDTH = flags.DEFINE_integer("width", 128, "Channels of the UNet of gin/cifar10.gin.", 64)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each process.", 1)
_STEPS = flags.DEFINE_integer("steps", 3, "Steps a turn; three times as many evaluations.", 1)
_COMPILED = flags.DEFINE_bool("compiled", False, "With torch.compile, too.")
_DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "Where both run.")
_PEER_PYTHON = define_path("peer_python", sys.executable, "A Python that has diffusers.")
_OUTPUT = define_path("output", None, "A Markdown file; the numbers go beside it as .json.")


@dataclass
class Process:
    """A worker, and what it told."""

    name: str
    handle: subprocess.Popen
    first_step: float = 0.0
    about: dict = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    peak_megabytes: float = 0.0

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def hear(self) -> dict:
        """Its next line.

        Raises:
            UserError: it ended.
        """
        for line in self.handle.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise UserError(f"{self.name} ended with status {self.handle.wait()}; see its output above")

    def take_turn(self, images: int) -> None:
        self.handle.stdin.write("turn\n")
        self.handle.stdin.flush()
        self.rates.append(images / self.hear()["seconds"])

    def end(self) -> None:
        self.handle.stdin.close()
        self.peak_megabytes = self.hear()["peak_megabytes"]
        self.handle.wait()


def start(name: str, python: str, script: str, case: dict) -> Process:
    """Starts a worker and waits for its first step."""
    began = time.monotonic()
    handle = subprocess.Popen(
        [python, os.path.join(HERE, script), json.dumps(case)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process = Process(name, handle)
    process.about = process.hear()
    process.first_step = time.monotonic() - began
    return process


def check_peer(python: str) -> None:
    """Raises a `UserError` if a Python has no diffusers."""
    try:
        found = subprocess.run([python, "-c", "import diffusers, torch"], stderr=subprocess.DEVNULL)
    except OSError as error:
        raise UserError(f"--peer_python={python} cannot be run: {error.strerror}") from error
    if found.returncode:
        raise UserError(
            f'--peer_python={python} has no PyTorch with diffusers: pip install "torch<2.15" '
            '"diffusers<0.43" into an environment, and name its python'
        )


def measure(case: dict) -> list[Process]:
    """The processes of a case, after all their turns; ours is the first."""
    processes = [start("ours", sys.executable, "peers_ours.py", case)]
    for is_compiled in (False, True)[: 1 + _COMPILED.value]:
        name = "compiled" if is_compiled else "eager"
        given = case | {"compiled": is_compiled}
        processes.append(start(name, _PEER_PYTHON.value, "peers_diffusers.py", given))
    for _ in range(_ROUNDS.value):
        for process in processes:
            process.take_turn(case["batch"] * case["steps"])
    for process in processes:
        process.end()
    return processes


def row(name: str, processes: list[Process]) -> dict:
    ours, *peers = processes
    best = max(peers, key=lambda peer: peer.rate)
    return {
        "case": name,
        "images_per_second": {p.name: p.rate for p in processes},
        "ratio": ours.rate / best.rate,
        "first_step_seconds": {p.name: p.first_step for p in processes},
        "peak_megabytes": {p.name: p.peak_megabytes for p in processes},
        "memory_ratio": ours.peak_megabytes / best.peak_megabytes,
        "about": {p.name: p.about for p in processes},
        "rounds": {p.name: p.rates for p in processes},
    }


def table(rows: list[dict]) -> str:
    """The rows in Markdown, under a line that says where they were measured."""
    peers = [name for name in rows[0]["images_per_second"] if name != "ours"]
    versions = rows[0]["about"]["ours"] | rows[0]["about"]["eager"]
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        f"{processor()}, {os.cpu_count()} cores; {libraries}; width {_WIDTH.value}; medians of "
        f"{_ROUNDS.value} turns of {_STEPS.value}",
        "",
        f"| images/s | ours | {' | '.join(peers)} | ratio | MB | first step, s |",
        "|---|" + "---|" * (len(peers) + 4),
    ]
    for found in rows:
        case, rates = CASES[found["case"]], found["images_per_second"]
        speeds = " | ".join(f"{rates[name]:.2f}" for name in ["ours", *peers])
        memory = " / ".join(f"{found['peak_megabytes'][name]:,.0f}" for name in ["ours", *peers])
        starts = " / ".join(f"{found['first_step_seconds'][n]:.0f}" for n in ["ours", *peers])
        title = f"{TITLES[case['task']]}, {case['dtype']}, batch {case['batch']}"
        lines.append(f"| {title} | {speeds} | {found['ratio']:.2f} | {memory} | {starts} |")
    return "\n".join(lines) + "\n"


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --width=128")
    if _WIDTH.value % 64:
        raise UserError(f"--width={_WIDTH.value} must be a multiple of 64, the width of a head")
    check_writable(_OUTPUT.value)
    check_peer(_PEER_PYTHON.value)
    rows = []
    for name in dict.fromkeys(_CASES.value):
        steps = _STEPS.value * (3 if CASES[name]["task"] == "sample" else 1)
        common = {"width": _WIDTH.value, "steps": steps, "device": _DEVICE.value}
        rows.append(row(name, measure(CASES[name] | common)))
        print(f"{name}: {rows[-1]['ratio']:.2f} times the peer", flush=True)
    print(table(rows))
    if _OUTPUT.value:
        write_atomically(_OUTPUT.value, table(rows))
        write_atomically(f"{os.path.splitext(_OUTPUT.value)[0]}.json", json.dumps(rows, indent=1))


if __name__ == "__main__":
    app.run(main)
