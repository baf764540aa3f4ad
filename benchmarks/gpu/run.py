"""Trains what `lower.py` put into a folder, where there is JAX and no TensorFlow.

python benchmarks/gpu/run.py lowered --output=back --minutes=8 --samples=10000

goes on with the state that is in --state, trains until the time is up, draws samples, and writes
into --output what is to be sent back: averaged weights and samples in files of 15 MiB at most, a
grid, and log.txt. SIGTERM and Ctrl-C save and stop. With --measure it only says how fast the step
is. Needs JAX, NumPy and Pillow.
"""

import argparse
import contextlib
import gzip
import json
import lzma
import os
import sys
import time
import zipfile
import zlib

import jax
import numpy as np
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from bdm_tf.stablehlo.running import Program
from bdm_tf.training.signals import StopRequest
from benchmarks.gpu.packing import unpack

jax.config.update("jax_enable_x64", True)  # steps are counted in int64
_FILE = 15 * 2**20  # bytes of arrays in a file that is sent back
_GRID = 10  # images along a side
# What files that came over a bad link can raise.
_DAMAGED = (OSError, EOFError, ValueError, KeyError, lzma.LZMAError, zlib.error)
_DAMAGED += (zipfile.BadZipFile,)


@contextlib.contextmanager
def reading(path: str):
    """Around what reads a file: the process ends with its name if it cannot be."""
    try:
        yield
    except _DAMAGED as error:
        sys.exit(f"error: {path} is lost or damaged ({error!r}): send it again")


class Run:
    """A lowered run on a device, and its state there.

    Args:
        folder: what `lower.py` wrote.
        log: takes lines.
    """

    def __init__(self, folder: str, log):
        self.folder, self.log = folder, log
        with reading(path := os.path.join(folder, "lowered.json")), open(path) as file:
            self.told = json.load(file)
        self.device = jax.devices()[0]
        self.step = 0
        self._programs: dict[str, Program] = {}
        kind, count = self.device.device_kind, self.told["parameters"]
        log(f"{kind}, JAX {jax.__version__}; {count:,} parameters")

    def program(self, name: str) -> Program:
        """Compiles a program, once."""
        if name not in self._programs:
            began = time.monotonic()
            known = self.told["programs"][name]
            with reading(path := os.path.join(self.folder, f"{name}.mlir.gz")):
                with gzip.open(path, "rt") as file:
                    text = file.read()
            self._programs[name] = Program(
                text,
                aliases=known["aliases"],
                variables=known["variables"],
                num_arguments=known["num_arguments"],
                device=self.device,
            )
            self.log(f"compiled {name} in {time.monotonic() - began:.1f} s")
        return self._programs[name]

    def begin(self) -> None:
        """Makes the state at step 0."""
        with reading(path := os.path.join(self.folder, "state.npz")), np.load(path) as arrays:
            there = dict(arrays)
        generator = np.random.default_rng(self.told["seed"])
        for how in self.told["state"]:
            shape, dtype = how["shape"], np.dtype(how["dtype"])
            if "fill" in how:
                value = np.full(shape, how["fill"], dtype)
            elif "same_as" in how:
                value = there[how["same_as"]]
            elif "deviation" in how:
                value = (how["deviation"] * generator.standard_normal(shape)).astype(dtype)
            else:
                value = there[how["name"]]
            there[how["name"]] = value
        self.step = 0
        self.state = {how["name"]: self.put(there[how["name"]]) for how in self.told["state"]}

    def go_on(self, path: str) -> bool:
        """Takes the state that `save` wrote; False if there is none."""
        if not os.path.exists(path):
            return False
        with reading(path), np.load(path) as arrays:
            there = dict(arrays)
        if str(there.get("run")) != self.told["run"]:
            sys.exit(f"error: {path} is of another run than {self.folder}; give another --state")
        self.step = int(there["step"])
        names = [how["name"] for how in self.told["state"]]
        self.state = {name: self.put(there[name]) for name in names}
        return True

    def save(self, path: str) -> None:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        values = {name: np.asarray(value) for name, value in self.state.items()}
        with open(f"{path}.partial", "wb") as file:
            np.savez(file, step=self.step, run=self.told["run"], **values)
        os.replace(f"{path}.partial", path)

    def load_images(self, kind: str):
        """uint8 `[N, H, W, C]` on the device: "images" or "evaluation"."""
        parts = []
        for name in self.told[kind]:
            with reading(path := os.path.join(self.folder, name)), open(path, "rb") as file:
                parts.append(unpack(file.read(), tuple(self.told["image_shape"])))
        return self.put(np.concatenate(parts))

    def train(self, images):
        """A call's steps; returns their records, which may still be under way."""
        first = self.put(np.int32(self.step))
        (records,) = self.program("train")([images, first], self.state)
        self.step += self.told["steps_per_call"]
        return records

    def loss(self, images) -> float:
        seed = self.put(np.array([self.told["seed"], 0], np.int32))
        (loss,) = self.program("loss")([images, seed], self.state)
        return float(loss)

    def sample(self, count: int, seed: int) -> np.ndarray:
        """uint8 `[count, H, W, C]`: those of the SavedModel for `[seed, seed]`, to rounding."""
        size, drawn = self.told["samples_per_call"], []
        for first in range(0, count, size):
            given = [self.put(np.array([seed, seed], np.int32)), self.put(np.int32(first))]
            drawn.append(self.program("sample")(given, self.state)[0])
        return np.concatenate([np.asarray(d) for d in drawn])[:count]

    def put(self, value):
        return jax.device_put(value, self.device)


def in_files(arrays: dict[str, np.ndarray], name: str, folder: str) -> None:
    """Writes arrays into `name-00.npz, ...`, each small enough to be sent; replaces older ones."""
    groups, size = [{}], 0
    for key, array in arrays.items():
        if size + array.nbytes > _FILE and groups[-1]:
            groups.append({})
            size = 0
        groups[-1][key] = array
        size += array.nbytes
    for number, group in enumerate(groups):
        path = os.path.join(folder, f"{name}-{number:02d}.npz")
        with open(f"{path}.partial", "wb") as file:
            np.savez_compressed(file, **group)
        os.replace(f"{path}.partial", path)


def write_grid(images: np.ndarray, path: str) -> None:
    side = min(_GRID, int(len(images) ** 0.5))
    _, height, width, channels = images.shape
    tiles = images[: side**2].reshape(side, side, height, width, channels)
    picture = tiles.transpose(0, 2, 1, 3, 4).reshape(side * height, side * width, channels)
    Image.fromarray(picture[..., 0] if channels == 1 else picture).save(path)


def matrix_rate(device, size: int) -> float:
    """TFLOP/s of a bfloat16 matrix product."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size), jax.numpy.bfloat16) for i in (0, 1))
    product = jax.jit(lambda a, b: a @ b)
    product(a, b).block_until_ready()
    began, rounds = time.monotonic(), 10
    for _ in range(rounds):
        result = product(a, b)
    result.block_until_ready()
    return 2 * size**3 * rounds / (time.monotonic() - began) / 1e12


def measure(run: Run, calls: int, matrix_size: int) -> None:
    """How fast the training step is, on images that are noise."""
    shape = (run.told["num_images"], *run.told["image_shape"])
    images = run.put(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    rates = []
    for call in range(calls + 1):  # the first is not counted
        began = time.monotonic()
        loss = float(np.asarray(run.train(images))[-1, 0])
        seconds = time.monotonic() - began
        if call:
            rates.append(run.told["steps_per_call"] * run.told["batch_size"] / seconds)
    rate = float(np.median(rates))
    run.log(f"training: {rate:,.0f} images/s, median of {calls} calls (loss {loss:.4f})")
    rate = matrix_rate(run.device, matrix_size)
    run.log(f"bfloat16 matrix product of {matrix_size}: {rate:.3g} TFLOP/s")


def train(run: Run, options, deadline: float, stop: StopRequest) -> None:
    """Trains until the deadline or --steps, saving now and then."""
    images = run.load_images("images")
    evaluated = run.load_images("evaluation") if "loss" in run.told["programs"] else None
    run.program("train"), run.program("sample")
    began, start, saved, waiting = time.monotonic(), run.step, time.monotonic(), []
    seconds = 0.0  # of a call, the longest
    while (
        not stop.signal_number
        and time.monotonic() + seconds < deadline
        and run.step < options.steps
    ):
        called = time.monotonic()
        records = run.train(images)
        if len(waiting) == 1:  # the device is never without a call
            report(run, waiting.pop(), began, start)
            seconds = max(seconds, time.monotonic() - called)
        waiting.append((run.step, records))
        if time.monotonic() - saved > options.save_every:
            if evaluated is not None:
                run.log(f"step {run.step}: evaluation loss {run.loss(evaluated):.5f}")
            send_back(run, options)
            saved = time.monotonic()
    for last in waiting:
        report(run, last, began, start)
    if run.step == start and not stop.signal_number:
        run.log(f"no step was taken from step {start}: compiling took all of --minutes, or --steps")
    if evaluated is not None:
        run.log(f"step {run.step}: evaluation loss {run.loss(evaluated):.5f}")
    send_back(run, options)
    if stop.signal_number:
        run.log(f"stopped at step {run.step}, saved in {options.state}; the same command goes on")
        sys.exit(128 + stop.signal_number)


def report(run: Run, waited, began: float, start: int) -> None:
    step, records = waited
    records = np.asarray(records)
    if not np.isfinite(records[:, 0]).all():
        sys.exit(f"error: the loss is no longer finite before step {step}; what was saved stays")
    rate = (step - start) * run.told["batch_size"] / (time.monotonic() - began)
    run.log(f"step {step}: loss {records[:, 0].mean():.5f}, {rate:,.0f} images/s")


def send_back(run: Run, options) -> None:
    """Saves the state, and writes averaged weights and a grid in place of the last ones."""
    run.save(os.path.join(options.state, "state.npz"))
    weights = {n: np.asarray(v) for n, v in run.state.items() if n.startswith("ema_weights/")}
    about = {"step": np.int64(run.step), "run": np.array(run.told["run"])}
    in_files({**about, **weights}, "weights", options.output)
    write_grid(run.sample(_GRID**2, 0), os.path.join(options.output, "grid.png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="what lower.py wrote")
    parser.add_argument("--output", default="back", help="what is to be sent back")
    parser.add_argument("--state", default="state", help="where this machine keeps the state")
    parser.add_argument("--minutes", type=float, default=8.0, help="of all, compiling too")
    parser.add_argument(
        "--sampling_minutes", type=float, help="of these, for samples; default 1, a quarter at most"
    )
    parser.add_argument("--steps", type=int, default=10**9, help="stop there")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--save_every", type=float, default=120.0, help="seconds")
    parser.add_argument("--measure", type=int, default=0, metavar="CALLS", help="only measure")
    parser.add_argument("--matrix_size", type=int, default=8192)
    options = parser.parse_args()
    if options.samples < 1:
        parser.error(f"--samples {options.samples} must be at least 1")
    kept_back = options.sampling_minutes
    if kept_back is None:
        kept_back = min(1.0, options.minutes / 4)
    deadline = time.monotonic() + 60 * (options.minutes - kept_back)
    began = time.monotonic()
    os.makedirs(options.output, exist_ok=True)
    with open(os.path.join(options.output, "log.txt"), "a") as file:

        def log(line: str) -> None:
            text = f"[{time.monotonic() - began:6.1f}] {line}"
            print(text, flush=True)
            print(text, file=file, flush=True)

        if not os.path.exists(os.path.join(options.folder, "lowered.json")):
            sys.exit(f"error: {options.folder} holds no lowered run; lower.py writes one")
        run = Run(options.folder, log)
        if options.measure:
            run.begin()
            measure(run, options.measure, options.matrix_size)
            return
        if not run.go_on(os.path.join(options.state, "state.npz")):
            run.begin()
        log(f"from step {run.step}")
        with StopRequest() as stop:
            train(run, options, deadline, stop)
        samples = run.sample(options.samples, 0)
        rows = max(1, _FILE // samples[:1].nbytes)
        for first in range(0, len(samples), rows):
            part = samples[first : first + rows]
            arrays = {"step": np.int64(run.step), "images": part}
            in_files(arrays, f"samples-{first // rows:02d}", options.output)
        log(f"done: {len(samples)} samples of {run.told['evaluations']} network evaluations")


if __name__ == "__main__":
    main()
