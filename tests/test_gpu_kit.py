"""benchmarks/gpu on the CPU: the lowered run is the library's run, to its end and back."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import config, exporting  # noqa: F401, exporting for gin
from bdm_tf.data.pipeline import to_unit_range
from bdm_tf.fitted import load_spectrum
from bdm_tf.model import build_model
from bdm_tf.networks.fused_norm import for_accelerators
from bdm_tf.stablehlo.steps import make_trainer, setting, use_defaults
from benchmarks.gpu import packing, programs
from tests.conftest import ROOT, TINY, run, run_afresh

KIT = os.path.join(ROOT, "benchmarks", "gpu")
# Adam would make steps as long as all others of gradients that are zero but for rounding.
PARAMETERS = [
    *TINY,
    "train.seed = 3",
    "train.clip_norm = 1.0",
    "UNet.dropout = 0.1",
    "train.optimizer = @FusedAdam()",
    "FusedAdam.epsilon = 0.01",
]
pytestmark = [
    pytest.mark.skipif(
        not importlib.util.find_spec("jax"), reason='JAX comes with pip install -e ".[tpu_check]"'
    ),
    pytest.mark.skipif(tf.__version__.startswith("2.15"), reason="2.15 has no StableHLO"),
]


def script(name, *arguments):
    return [sys.executable, os.path.join(KIT, name), *arguments]


def kit(*arguments):
    result = run_afresh(script("run.py", *arguments, "--samples=20", "--matrix_size=64"))
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A lowered run, and the same trained for 20 steps, two a call."""
    folder = tmp_path_factory.mktemp("gpu")
    parameters = [f"--gin_param={p}" for p in PARAMETERS]
    gin_file = f"--gin_file={os.path.join(ROOT, 'gin', 'digits.gin')}"
    lowered, output = str(folder / "lowered"), f"--output={folder / 'lowered'}"
    sizes = ["--steps_per_call=2", "--samples_per_call=20"]
    result = run(script("lower.py", gin_file, *parameters, output, *sizes))
    assert result.returncode == 0, result.stderr
    kit(lowered, f"--output={folder / 'once'}", f"--state={folder / 'once'}", "--steps=20")
    return folder


def state_of(folder):
    with np.load(folder / "state.npz") as arrays:
        return dict(arrays)


def test_a_killed_run_goes_on_as_if_it_had_not_been(folders, tmp_path):
    lowered, back, state = str(folders / "lowered"), tmp_path / "back", tmp_path / "state"
    arguments = [lowered, f"--output={back}", f"--state={state}", "--save_every=0", "--steps=20"]
    process = subprocess.Popen(script("run.py", *arguments), stdout=subprocess.PIPE)
    for line in process.stdout:
        if b"step 2: loss" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with np.load(back / "weights-00.npz") as weights:  # what it had sent is whole
        saved = int(weights["step"])
    assert 2 <= saved < 20
    shown = kit(*arguments)
    assert f"from step {saved}" in shown or f"from step {saved + 2}" in shown
    once, twice = state_of(folders / "once"), state_of(state)
    assert once.keys() == twice.keys() and once["step"] == 20
    for name, value in once.items():
        np.testing.assert_array_equal(value, twice[name], err_msg=name)


def test_what_the_link_damaged_is_named_and_a_stop_is_saved(folders, tmp_path):
    def cut(name):
        folder = shutil.copytree(folders / "lowered", tmp_path / name)
        with open(folder / name, "r+b") as file:
            file.truncate(100)
        return folder

    state = ["--minutes=1", f"--output={tmp_path}", f"--state={tmp_path / 'state'}"]
    for name in ("images-00.xz", "train.mlir.gz", "state.npz", "lowered.json"):
        result = run_afresh(script("run.py", str(cut(name)), *state))
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert f"{name} is lost or damaged" in result.stderr
    process = subprocess.Popen(
        script("run.py", str(folders / "lowered"), *state), stdout=subprocess.PIPE, text=True
    )
    shown = ""
    for line in process.stdout:
        shown += line
        if "step 2: loss" in line:
            process.terminate()
    assert process.wait() == 143 and "stopped at step" in shown
    assert (tmp_path / "state" / "state.npz").exists() and (tmp_path / "grid.png").exists()


def test_the_state_is_that_of_the_librarys_own_steps(folders):
    # The same images in the same batches: as drawn by the kit, handed over by hand.
    config.parse([os.path.join(ROOT, "gin", "digits.gin")], PARAMETERS)
    images, _ = setting("data").load(None)
    use_defaults(images.image_shape)
    keras.utils.set_random_seed(3)
    model = build_model()
    load_spectrum(model, str(folders / "lowered"))
    trainer, state = make_trainer(model, 8)
    everything = tf.constant(np.concatenate(list(images.in_order(500))))
    with open(folders / "lowered" / "images-00.xz", "rb") as file:
        np.testing.assert_array_equal(packing.unpack(file.read(), (8, 8, 1)), everything)
    batches = [
        programs.training_batch(everything, tf.constant(i), 8, 3, flip=False) for i in range(20)
    ]
    pieces = {"image": to_unit_range(tf.stack(batches)), "row": tf.zeros([20], tf.int32)}
    with for_accelerators():  # on a CPU dropout draws by other operations
        records = trainer.run(iter(tf.data.Dataset.from_tensor_slices(pieces)), 20)
    assert np.isfinite(records).all()
    found = state_of(folders / "once")
    for name, variable in programs.named_variables(model, state).items():
        np.testing.assert_allclose(found[name], variable, rtol=1e-5, atol=1e-6, err_msg=name)


def test_batches_are_epochs_of_all_images_and_flips_are_fair():
    everything = tf.cast(tf.reshape(tf.range(40), [20, 1, 2, 1]), tf.uint8)
    steps = map(tf.constant, range(300))
    drawn = [programs.training_batch(everything, step, 6, 0, flip=True) for step in steps]
    drawn = np.array(drawn)[..., 0].reshape(100, 18, 2)  # epochs of three batches
    numbers = drawn.min(-1) // 2
    assert all(len(set(epoch)) == 18 for epoch in numbers)
    assert len({tuple(epoch) for epoch in numbers}) == 100
    assert 0.45 < (drawn[..., 0] > drawn[..., 1]).mean() < 0.55
    assert np.bincount(numbers.ravel(), minlength=20).min() > 80


def test_what_is_brought_back_draws_what_was_drawn_there(folders, tmp_path):
    paths = [f"--lowered={folders / 'lowered'}", f"--back={folders / 'once'}"]
    result = run(script("bring_back.py", *paths, f"--workdir={tmp_path / 'run'}"))
    assert result.returncode == 0, result.stderr
    model = tf.saved_model.load(str(tmp_path / "run" / "saved_model"))
    seed, count, steps, first = [tf.constant(x) for x in ([0, 0], 20, 0, 0)]
    here = model.sample(seed=seed, num_images=count, num_steps=steps, first=first).numpy()
    with np.load(folders / "once" / "samples-00-00.npz") as samples:
        there = samples["images"]
    assert np.abs(here.astype(int) - there).max() <= 1
    assert here.std() > 10
    assert (tmp_path / "run" / "checkpoints" / "ckpt-20.index").exists()


def test_the_script_measures_with_and_without_pytorch(folders, tmp_path):
    script = ["bash", os.path.join(KIT, "borrowed.sh")]
    environment = {"PYTHON": sys.executable, "MATRIX_SIZE": "64", "OUT": str(tmp_path)}
    result = subprocess.run(
        [*script, "measure", str(folders / "lowered")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert "images/s, median of 3 calls" in result.stdout and "TFLOP/s" in result.stdout
    assert "no PyTorch here" in result.stdout or "median of 5 rounds" in result.stdout
    assert (tmp_path / "measured.txt").read_text() == result.stdout
    assert subprocess.run(script, capture_output=True).returncode == 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_packing_loses_nothing(channels):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, channels), dtype=np.uint8)
    images[0] = 255
    np.testing.assert_array_equal(packing.unpack(packing.pack(images), images.shape[1:]), images)


def test_mistakes_end_in_a_message(folders, tmp_path):
    gin_file = f"--gin_file={os.path.join(ROOT, 'gin', 'digits.gin')}"
    wrong = {
        "lower.py": ([gin_file, f"--output={folders / 'lowered'}"], "give another folder"),
        "bring_back.py": (
            [f"--lowered={tmp_path}", f"--back={folders / 'once'}", f"--workdir={tmp_path / 'w'}"],
            "holds no lowered run",
        ),
    }
    for name, (arguments, message) in wrong.items():
        result = run(script(name, *arguments))
        assert result.returncode == 1 and message in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
    result = run_afresh(script("run.py", str(tmp_path)))
    assert result.returncode == 1 and "holds no lowered run" in result.stderr
