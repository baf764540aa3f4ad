"""Small data sets and runs that several tests share."""

import json
import os
import re
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

from tests.forks import forks

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NO_ADDONS = "tensorflow-addons imports beside TensorFlow 2.15 only: the extra [addons]"

# The digits' gin file at a size that trains in seconds.
TINY = [
    "UNet.channels = 8",
    "UNet.channel_multipliers = (1,)",
    "UNet.num_res_blocks = 1",
    "UNet.attention_resolutions = ()",
    "train.batch_size = 8",
    "train.num_steps = 12",
    "train.steps_per_call = 4",
    "train.log_every = 3",
    "train.checkpoint_every = 4",
    "train.eval_every = 6",
    "train.eval_images = 16",
    "train.sample_every = 0",
    "sample.num_steps = 3",
    "export_saved_model.chunk_size = 4",
]
FASTER = ["train.warmup_steps = 0", "train.learning_rate = 0.02"]  # so that labels matter


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, os.path.join(ROOT, "launch", script), *arguments]


def train_command(
    workdir, data_dir, *parameters: str, extra=(), gin_file="digits.gin"
) -> list[str]:
    bindings = [f"--gin_param={p}" for p in [*TINY, *parameters]]
    gin_file = f"--gin_file={os.path.join(ROOT, 'gin', gin_file)}"
    paths = [f"--workdir={workdir}", f"--data_dir={data_dir}"]
    return command("train.py", gin_file, *bindings, *paths, *extra)


def run(arguments, timeout=400):
    """Runs a command of this Python from a folder that is not the repository."""
    return forks().run(arguments, timeout)


def run_afresh(arguments, timeout=400, env=None):
    """Runs any command from a folder that is not the repository, with all of its imports."""
    return subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=os.path.expanduser("~"),
        env=env,
    )


def kill_after(arguments, pattern, count):
    """Starts a command, kills it when its progress (the pattern's group) has reached a count.

    Returns what it had written to stderr.
    """
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seen = b""
    while process.poll() is None:
        seen += process.stderr.read(1)
        shown = re.findall(pattern, seen)
        if shown and int(shown[-1]) >= count:
            break
    process.kill()
    process.communicate()
    return seen


def saved_values(workdir, name=""):
    """All that a workdir's newest checkpoint (or the one named) holds, name to array."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(os.path.join(workdir, "checkpoints", name))
    names = [n for n in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in n]
    return {
        n: reader.get_tensor(n) for n in names if n != "save_counter/.ATTRIBUTES/VARIABLE_VALUE"
    }


def metrics(workdir):
    """The rows of metrics.jsonl without what differs from run to run."""
    with open(os.path.join(workdir, "metrics.jsonl")) as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        row.pop("images_per_second", None)
    return rows


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    from bdm_tf.data import TFDSImages

    path = str(tmp_path_factory.mktemp("tfds"))
    TFDSImages("digits").load(path)
    return path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, digits_dir):
    """A workdir whose tiny training was never interrupted."""
    workdir = str(tmp_path_factory.mktemp("run") / "whole")
    result = run(train_command(workdir, digits_dir))
    assert result.returncode == 0, result.stderr[-3000:]
    return workdir


@pytest.fixture(scope="session")
def labelled_run(tmp_path_factory, digits_dir):
    """A workdir of a tiny training with labels."""
    workdir = str(tmp_path_factory.mktemp("labels") / "whole")
    result = run(train_command(workdir, digits_dir, *FASTER, gin_file="digits_labels.gin"))
    assert result.returncode == 0, result.stderr[-3000:]
    return workdir
