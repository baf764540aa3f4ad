"""A run in `ram://`, from training to samples: every file goes through `tf.io.gfile`."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, TINY

SCRIPT = """
import json, os, sys
import numpy as np, tensorflow as tf
from bdm_tf import config
from bdm_tf.evaluation.job import make_evaluation
from bdm_tf.evaluation.paths import Paths
from bdm_tf.evaluation.once import evaluate_once
from bdm_tf.evaluation.subjects import open_subject
from bdm_tf.exporting import export, finish_run
from bdm_tf.sample_files import sample_to_file
from bdm_tf.model import load_model
from bdm_tf.process_figures import draw_to_file
from bdm_tf.training.loop import train
from bdm_tf.training.strategy import make_strategy

data_dir, *tiny = sys.argv[1:]
workdir = "ram://run"
strategy = make_strategy("one_device")

def train_to(steps):
    config.parse(["digits.gin"], [*tiny, f"train.num_steps = {steps}"])
    assert train(workdir, strategy, lambda model, step: finish_run(model, step, workdir),
                 data_dir=data_dir) is None

train_to(6)
train_to(12)
lines = tf.io.gfile.GFile("ram://run/metrics.jsonl").read().splitlines()
assert [json.loads(line)["step"] for line in lines] == [3, 6, 9, 12]

parameters = ["evaluate.num_images = 20", "evaluate.batch_size = 20", "evaluate.num_steps = 2",
              "KernelDistance.subset_size = 10", "KernelDistance.subsets = 2",
              "EvalLoss.draws = 1", "BitsPerDimension.draws = 1"]
subject = open_subject(strategy, lambda: config.overlay(["eval/digits.gin"], parameters),
                       workdir=workdir)
paths = Paths(cache_dir="ram://cache", data_dir=data_dir, export_statistics="ram://statistics",
              save_samples="ram://kept/samples.npz")
evaluation = make_evaluation(subject, strategy, paths)
subject.restore_step(None)
evaluate_once(evaluation, "ram://run/results.json", overwrite=False)
results = json.loads(tf.io.gfile.GFile("ram://run/results.json").read())
assert results["figures"]["bits_per_dim"]["value"] > 0

model, step = load_model(workdir, 8)
export(model, step, "ram://exported")
for output in ("ram://drawn/grid.png", "ram://drawn/images.npz"):
    sample_to_file("ram://exported", output, num_images=6, seed=0, first=0, num_steps=2)
draw_to_file("process", "ram://drawn/process.png", gin_files=[], workdirs=[workdir],
             saved_models=["ram://exported"], gin_params=[], data_dir=data_dir,
             num_times=3, image=0, num_images=1, seed=0)
for path in ("ram://run/config.gin", "ram://run/saved_model/saved_model.pb",
             "ram://statistics/train.npz", "ram://run/samples/final.png", "ram://kept/samples.npz", "ram://drawn/grid.png",
             "ram://drawn/images.npz", "ram://drawn/process.png"):
    assert tf.io.gfile.exists(path), path
assert tf.io.gfile.glob("ram://cache/*.npz") and not tf.io.gfile.glob("ram://run/samples-*/*")
assert tf.train.latest_checkpoint("ram://run/checkpoints").endswith("ckpt-12")
sys.stdout.flush()
os._exit(0)
"""


def listed(folder):
    """All folders and files in a folder, but for what AutoGraph keeps while it works."""
    return sorted(
        os.path.join(path, name)
        for path, folders, files in os.walk(folder)
        for name in [*folders, *files]
        if not name.startswith(("__autograph_generated_file", "__pycache__"))
    )


@pytest.mark.slow
def test_nothing_is_written_but_to_ram(tmp_path, digits_dir):
    home, here, temporary, libraries = (tmp_path / n for n in ("home", "here", "tmp", "libraries"))
    for folder in (home, here, temporary, libraries):
        folder.mkdir()
    own = {"MPLCONFIGDIR": str(libraries), "KERAS_HOME": str(libraries)}  # theirs, not ours
    data = listed(digits_dir)
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, digits_dir, *TINY],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=here,
        env={**os.environ, **own, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": ROOT},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    # Nor a folder "ram:", which is what os.makedirs makes of such a path.
    assert listed(home) == listed(here) == listed(temporary) == []
    assert listed(digits_dir) == data
