"""benchmarks/table1.py: a tiny table by real processes, and its mistakes."""

import os
import re
import sys

import numpy as np
import pytest

from tests.conftest import ROOT, run

pytestmark = pytest.mark.slow

TINY = [
    "--num_steps=2",
    "--gin_param=UNet.channels = 8",
    "--gin_param=UNet.channel_multipliers = (1,)",
    "--gin_param=train.batch_size = 8",
    "--gin_param=train.sample_every = 0",
    "--gin_param=CumulativeBlur.num_steps = 2",
    "--gin_param=sample.num_steps = 2",
    "--gin_param=train.sample_num_steps = 2",
    "--eval_flag=--num_images=60",
    "--eval_flag=--gin_param=KernelDistance.subset_size = 30",
    "--eval_flag=--gin_param=EvalLoss.draws = 1",
    "--eval_flag=--gin_param=BitsPerDimension.draws = 1",
    "--columns=5",
]


def table1(*flags):
    return run([sys.executable, os.path.join(ROOT, "benchmarks", "table1.py"), *flags])


def test_a_table_is_made_once_and_shown_again(tmp_path, digits_dir):
    folder, only = str(tmp_path / "table"), "--only=cold_diffusion"
    flags = [*TINY, only, f"--folder={folder}", f"--data_dir={digits_dir}"]
    first = table1(*flags)
    assert first.returncode == 0, first.stderr[-3000:]
    with open(f"{folder}/table_1_cold_diffusion.md") as file:
        rows = [re.split(r" *[|] *", line)[1:-1] for line in file if line.startswith("|")]
    assert rows[0][:2] == ["model", "fd_pixels_train"] and rows[0][-2] == "sampling steps"
    assert rows[2][0] == "Cold Diffusion (blur)*" and rows[2][-2:] == ["2", "80.08"]
    assert float(rows[2][1]) > 0
    samples = os.path.join(folder, "cold_diffusion", "samples_2.npz")
    assert np.load(samples)["images"].shape == (60, 8, 8, 1)
    assert os.path.getsize(f"{folder}/table_1_cold_diffusion.png") > 1000
    written = os.stat(samples).st_mtime_ns
    again = table1(*flags)
    assert again.returncode == 0 and "measured already" in again.stdout
    assert os.stat(samples).st_mtime_ns == written
    by_evaluations = table1(*flags, "--evaluations=9,2")
    assert by_evaluations.returncode == 0, by_evaluations.stderr[-3000:]
    with open(f"{folder}/table_1_cold_diffusion_by_evaluations.md") as file:
        head, _, row = file.read().splitlines()
    assert head == "| fd_pixels_train | sampler | 2 evaluations | 9 evaluations |"
    # Of two steps that it learnt, nine cannot be taken.
    assert re.fullmatch(r"\| Cold Diffusion \(blur\)\* \| Momentum \| [\d.]+ \|  \|", row)


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--only=ihdm,nix", "--only: nix is none of blurring_diffusion, cold_diffusion"),
        ("--since_2022 --only=relay", "relay is none of blurring_diffusion, cold_diffusion, den"),
        ("--only=relay_diffusion", "--only: relay_diffusion is none of blurring_diffusion"),
        ("--num_steps=0", "--num_steps=0 must be at least 1"),
        ("--seeds=0,1", "--seeds of more than one goes with --evaluations"),
        ("--evaluations=20,many", "--evaluations=20,many must be whole numbers"),
        ("--columns=0", "--columns=0 must be at least 1"),
        ("--gin_folder=/nowhere", "--gin_folder=/nowhere does not exist"),
        ("--eval_flag=--output=x.json", "--eval_flag=--output=x.json: this command chooses"),
    ],
)
def test_a_mistake_is_named_before_anything_is_trained(flag, words, tmp_path):
    result = table1(*flag.split(), f"--folder={tmp_path}/table")
    assert result.returncode == 1 and words in result.stderr
    assert "Traceback" not in result.stderr and not os.path.exists(tmp_path / "table")
