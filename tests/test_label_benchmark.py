"""benchmarks/labels.py: a tiny table by real processes."""

import os
import sys

import pytest

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


def test_a_row_without_labels_and_one_for_each_guidance(tmp_path, digits_dir):
    script = os.path.join(ROOT, "benchmarks", "labels.py")
    flags = [*TINY, f"--folder={tmp_path}", f"--data_dir={digits_dir}"]
    result = run([sys.executable, script, *flags])
    assert result.returncode == 0, result.stderr[-3000:]
    head, _, plain, guided = (tmp_path / "labels.md").read_text().splitlines()
    assert head == "| | Fréchet | accuracy | precision | recall |"
    assert plain.startswith("| no labels | ") and plain.split(" | ")[2].strip() == ""
    cells = guided.strip("| ").split(" | ")
    assert cells[0] == "labels, guidance 2" and all(0 <= float(cell) for cell in cells[1:])
    wrong = run([sys.executable, script, "--seeds=a"])
    assert wrong.returncode == 1 and "--seeds: a must be a whole number" in wrong.stderr
