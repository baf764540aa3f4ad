"""The benchmarks of labels and of restoring, tiny, by real processes."""

import os
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ROOT, run

pytestmark = pytest.mark.slow

TINY = [
    "--seeds=0",
    "--guidance=2",
    "--num_images=60",
    "--num_steps=2",
    "--gin_param=UNet.channels = 8",
    "--gin_param=UNet.channel_multipliers = (1,)",
    "--gin_param=train.batch_size = 8",
    "--gin_param=train.sample_every = 0",
    "--gin_param=train.sample_images = 4",
    "--gin_param=sample.num_steps = 2",
]
FOLDER = os.path.join(ROOT, "benchmarks")


def benchmark(name, *arguments):
    result = run([sys.executable, os.path.join(FOLDER, name), *arguments])
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_a_row_without_labels_and_one_for_each_guidance(tmp_path, digits_dir):
    benchmark("labels.py", *TINY, f"--folder={tmp_path}", f"--data_dir={digits_dir}")
    head, _, plain, guided = (tmp_path / "labels.md").read_text().splitlines()
    assert head == "| | Fréchet | accuracy | precision | recall |"
    assert plain.startswith("| no labels | ") and plain.split(" | ")[2].strip() == ""
    cells = guided.strip("| ").split(" | ")
    assert cells[0] == "labels, guidance 2" and all(0 <= float(cell) for cell in cells[1:])
    wrong = run([sys.executable, os.path.join(FOLDER, "labels.py"), "--seeds=a"])
    assert wrong.returncode == 1 and "--seeds: a must be a whole number" in wrong.stderr


def test_a_classifier_knows_held_out_digits(tmp_path, digits_dir):
    gin_file = os.path.join(ROOT, "gin", "digits_labels.gin")
    output = str(tmp_path / "classes")
    flags = [f"--gin_file={gin_file}", f"--data_dir={digits_dir}", "--epochs=40"]
    told = benchmark("classifier.py", *flags, f"--output={output}")
    right, count = re.search(r"right about (\S+) of (\d+) images", told).groups()
    assert float(right) > 0.8 and int(count) == 359
    classifier = tf.saved_model.load(output)
    found = classifier.serve(np.zeros([3, 8, 8, 1], np.uint8))
    assert found["features"].shape == (3, 128) and found["logits"].shape == (3, 10)


def test_a_row_for_each_way_of_filling_in(finished_run, digits_dir):
    flags = ["--tasks=inpaint the left half", "--samplers=own,repaint", "--ways=2x2"]
    numbers = ["--num_images=20", "--samples=2", f"--data_dir={digits_dir}"]
    rows = benchmark("restoration.py", f"--run=tiny={finished_run}", *flags, *numbers).splitlines()
    for row, way in zip(rows[-2:], ("own", "repaint")):
        name, what, one, mean, distance = row.strip("| ").split(" | ")
        assert (name, what) == ("tiny", f"inpaint the left half, {way}, 2x2")
        assert float(one.split(" / ")[0]) < float(mean.split(" / ")[0])  # PSNR; a mean is nearer
        assert float(distance) > 0.0


REPAINT = """
import sys
folder, workdir = sys.argv[1:]
sys.path.insert(0, folder)
import numpy as np
from absl import flags
from restoration import Replacing, drawn
from bdm_tf.model import load_model
flags.FLAGS(["", "--num_images=6", "--samples=2"])
truth = np.random.default_rng(0).integers(0, 256, [6, 8, 8, 1]).astype(np.uint8)
found = drawn(load_model(workdir)[0], Replacing(truth), None, 3, 2)
same = found == truth[:, None]
assert same[:, :, :, 4:].all() and same[:, :, :, :4].mean() < 0.2
"""


def test_repaint_ends_with_the_known_pixels(finished_run):
    result = run([sys.executable, "-c", REPAINT, FOLDER, finished_run])
    assert result.returncode == 0, result.stderr[-3000:]
