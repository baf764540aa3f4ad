"""The commands in real processes: resume, export, sample, and what they say to wrong input."""

import json
import os
import re
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.conftest import (
    ROOT,
    command,
    metrics,
    run,
    saved_values,
    train_command,
)


@pytest.mark.slow
def test_a_run_that_prepares_its_data_is_the_run_that_finds_them(tmp_path, finished_run):
    workdir = str(tmp_path / "first")
    result = run(train_command(workdir, tmp_path / "no data yet"))
    assert result.returncode == 0, result.stderr[-3000:]
    found, first = saved_values(finished_run), saved_values(workdir)
    for name in found:
        np.testing.assert_array_equal(found[name], first[name], err_msg=name)


def test_a_signal_saves_without_a_reader_of_stderr_and_the_same_command_goes_on(
    tmp_path, digits_dir
):
    workdir = str(tmp_path / "stopped")
    predicts = "Model.parametrisation = @PredictEps()"
    arguments = train_command(workdir, digits_dir, predicts, "train.num_steps = 1000000")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen = b""
    while b"1/1000000" not in seen and process.poll() is None:
        seen += process.stderr.read(1)
    assert b"3 steps may be too few: this model samples in 3, predicts eps" in seen
    process.stderr.close()  # as of `2>&1 | tee log` after Ctrl-C
    process.send_signal(signal.SIGUSR1)  # as Slurm does before a limit
    out = process.stdout.read()
    assert process.wait(300) == 128 + signal.SIGUSR1, seen[-2000:]
    step = int(re.search(r"stopped at step (\d+)", out.decode()).group(1))
    assert os.path.exists(os.path.join(workdir, "checkpoints", f"ckpt-{step}.index"))
    result = run(train_command(workdir, digits_dir, predicts, f"train.num_steps = {step + 1}"))
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"resuming at step {step} of {step + 1}" in result.stdout
    assert re.search(r"\d/\d", result.stderr) and not re.search(r"-[\d.]+step/s", result.stderr)
    steps = [row["step"] for row in metrics(workdir)]
    assert steps == sorted(set(steps)) and steps[-1] == step + 1


def test_a_finished_run_says_so_and_changes_nothing(digits_dir, finished_run):
    before = metrics(finished_run)
    result = run(train_command(finished_run, digits_dir))
    assert result.returncode == 0 and "done already" in result.stdout
    assert metrics(finished_run) == before


def test_a_lost_final_grid_is_drawn_again(digits_dir, finished_run):
    grid = os.path.join(finished_run, "samples", "final.png")
    with open(grid, "rb") as file:
        before = file.read()
    os.remove(grid)
    assert run(train_command(finished_run, digits_dir)).returncode == 0
    with open(grid, "rb") as file:
        assert file.read() == before


def test_metrics_have_every_scalar(finished_run):
    rows = metrics(finished_run)
    assert [r["step"] for r in rows] == [3, 6, 9, 12]
    assert {"loss", "gradient_norm", "learning_rate"} <= rows[0].keys()
    assert any(name.startswith("loss_by_t/") for name in rows[0])
    assert [("eval_loss" in r) for r in rows] == [False, True, False, True]


def test_another_configuration_is_refused_by_name(digits_dir, finished_run):
    result = run(train_command(finished_run, digits_dir, "UNet.channels = 16"))
    assert result.returncode == 1
    assert "UNet.channels: 8 there, 16 here" in result.stderr
    assert "Traceback" not in result.stderr


def test_export_needs_the_workdir_alone(tmp_path, finished_run):
    out = str(tmp_path / "exported")
    arguments = command("export.py", f"--workdir={finished_run}", f"--export_dir={out}", "--step=8")
    result = run(arguments)
    assert result.returncode == 0, result.stderr[-2000:]
    with open(os.path.join(out, "assets.extra", "model_info.json")) as file:
        info = json.load(file)
    assert info["step"] == 8 and info["data_set"] == "digits" and info["num_steps"] == 3
    again = run(arguments)
    assert again.returncode == 1 and "--overwrite" in again.stderr


def test_sample_writes_a_grid_and_an_array(tmp_path, finished_run):
    model = f"--saved_model={os.path.join(finished_run, 'saved_model')}"
    for name in ("GRID.PNG", "images.npz"):
        output = f"--output={tmp_path / name}"
        result = run(command("sample.py", model, output, "--num_images=6"))
        assert result.returncode == 0, result.stderr[-2000:]
    images = np.load(tmp_path / "images.npz")["images"]
    assert images.shape == (6, 8, 8, 1) and images.dtype == np.uint8


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_saved(tmp_path, digits_dir):
    workdir = str(tmp_path / "diverging")
    flags = ["train.learning_rate = 1e30", "train.clip_norm = None", "train.checkpoint_every = 1"]
    result = run(train_command(workdir, digits_dir, *flags))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    step, last_good = re.search(
        r"not finite at step (\d+); the last good checkpoint \((.*?)\)", result.stderr
    ).groups()
    assert last_good.endswith(f"ckpt-{int(step) - 1}")
    for values in saved_values(workdir).values():
        assert np.isfinite(values).all()


BAD_TRAINING = {
    "unknown parameter": (["--gin_param=UNet.chanels = 4"], "Did you mean channels?"),
    "no number": (["--gin_param=train.learning_rate = 'x'"], "train.learning_rate='x'"),
    "misspelt class": (["--gin_param=train.data = @TFDSImage()"], "TFDSImage"),
    "indivisible image": (["--gin_param=UNet.channel_multipliers = (1, 1, 1, 1, 1)"], "divisible"),
    "no tpu": (["--strategy=tpu"], "no TPU is attached"),
    "unwritable workdir": (["--workdir=/proc/nothing"], "cannot be written"),
    "a word for a number": (["--gin_param=train.num_steps = 'a'"], "train.num_steps='a'"),
    "no step a call": (["--gin_param=train.steps_per_call = 0"], "train.steps_per_call=0"),
    "negative blur": (
        ["--gin_param=BlurSchedule.sigma_blur_max = -1.0"],
        "must be a number at least 0",
    ),
    "no images at all": (["--gin_param=train.batch_size = 0"], "train.batch_size=0"),
    "no way to learn": (["--gin_param=Model.parametrisation = @PredictStep()"], "blur of K steps"),
    "unknown data": (["--gin_param=TFDSImages.name = 'digitz'"], "digitz"),
}


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_wrong_training_input_gets_a_clear_message(case, tmp_path, digits_dir):
    flags, message = BAD_TRAINING[case]
    result = run(train_command(tmp_path / "w", digits_dir, extra=flags))
    assert result.returncode == 1, result.stderr[-2000:]
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("memory", [4.0, 0.0])  # decoded at the start, streamed during training
def test_a_damaged_image_is_named_or_skipped(memory, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(9):
        Image.new("L", (12, 10), 20 * i).save(folder / f"{i}.png")
    (folder / "bad.png").write_bytes(b"no image")
    source = "@ImageFolder()", "ImageFolder.image_size = 8", "ImageFolder.channels = 1"
    flags = [f"train.data = {source[0]}", *source[1:], f"ImageFolder.max_memory_gb = {memory}"]
    stopped = run(train_command(tmp_path / "a", folder, *flags))
    assert stopped.returncode == 1 and "Traceback" not in stopped.stderr
    assert "bad.png is not a readable image" in stopped.stderr.splitlines()[-1]
    skipped = run(train_command(tmp_path / "b", folder, *flags, extra=["--on_corrupt_image=skip"]))
    assert skipped.returncode == 0, skipped.stderr[-2000:]
    assert "bad.png" in skipped.stderr


def test_an_empty_folder_is_named(tmp_path):
    flags = ["train.data = @ImageFolder()", "ImageFolder.image_size = 8"]
    result = run(train_command(tmp_path / "w", tmp_path, *flags))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"{tmp_path} holds no images" in result.stderr


BAD_SAMPLING = {
    "no model": (["--saved_model=/nowhere", "--output=a.png"], "is not there"),
    "no images": (["--saved_model=/x", "--output=a.png", "--num_images=0"], "--num_images=0"),
    "negative steps": (["--saved_model=/x", "--output=a.png", "--num_steps=-1"], "--num_steps=-1"),
    "wrong ending": (["--saved_model=/x", "--output=a.gif"], "a.gif"),
}


@pytest.mark.parametrize("case", BAD_SAMPLING)
def test_wrong_sampling_input_gets_a_clear_message(case):
    flags, message = BAD_SAMPLING[case]
    result = run(command("sample.py", *flags))
    assert result.returncode == 1 and message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_matrix_of_ones_own_is_part_of_the_run(tmp_path, digits_dir):
    path, workdir = str(tmp_path / "P.npz"), str(tmp_path / "run")
    rows, columns = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 8, 8)))[0]
    np.savez(path, rows=1.5 * rows, columns=columns)
    basis = "BlurringProcess.basis = @MatrixBasis()", f"MatrixBasis.path = '{path}'"
    arguments = train_command(workdir, digits_dir, *basis, "train.num_steps = 3")
    result = run(arguments)
    assert result.returncode == 0, result.stderr[-2000:]
    np.savez(path, rows=rows, columns=columns)
    for again in (arguments, command("export.py", f"--workdir={workdir}", f"--export_dir={path}x")):
        result = run(again)
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert "MatrixBasis" in result.stderr and "began with" in result.stderr


def test_half_a_configuration_says_what_it_lacks(tmp_path):
    gin_file = f"--gin_file={os.path.join(ROOT, 'gin', 'base', 'ihdm.gin')}"
    result = run(command("train.py", gin_file, f"--workdir={tmp_path}"))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "'learning_rate'" in result.stderr and "gin/digits.gin" in result.stderr


def test_missing_gin_file_is_named(tmp_path):
    result = run(command("train.py", "--gin_file=nowhere.gin", f"--workdir={tmp_path}"))
    assert result.returncode == 1 and "nowhere.gin" in result.stderr
    assert "Traceback" not in result.stderr
