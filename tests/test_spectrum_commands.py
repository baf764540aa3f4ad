"""The spectrum in a run's folder, and what is measured at its end, by the commands."""

import os
import shutil

import numpy as np
import pytest

from tests.conftest import ROOT, command, run, train_command
from tests.evaluation.conftest import load, succeeded


@pytest.fixture
def workdir(tmp_path, finished_run):
    return shutil.copytree(finished_run, str(tmp_path / "run"))


def changed(path):
    with np.load(path) as arrays:
        arrays = dict(arrays)
    np.savez(path, **{**arrays, "mean": arrays["mean"] + 0.1})


def test_another_spectrum_is_refused_and_a_lost_one_measured_again(workdir, digits_dir, tmp_path):
    path = os.path.join(workdir, "spectrum.npz")
    with np.load(path) as arrays:
        before = dict(arrays)
    changed(path)
    for arguments in (
        train_command(workdir, digits_dir),
        command("export.py", f"--workdir={workdir}", f"--export_dir={tmp_path}/e"),
    ):
        result = run(arguments)
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert "spectrum.npz is not the one that the run was trained with" in result.stderr
        assert "or remove this" in result.stderr
    os.remove(path)
    result = run(command("export.py", f"--workdir={workdir}", f"--export_dir={tmp_path}/e"))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "spectrum.npz" in result.stderr and not os.path.exists(f"{tmp_path}/e")
    succeeded(train_command(workdir, digits_dir))
    with np.load(path) as arrays:
        for name, array in before.items():
            np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def test_a_finished_run_is_exported_anew_with_another_sampler(workdir, digits_dir, tmp_path):
    shrink = "sample.projection = @SpectralShrink()"
    exported = os.path.join(workdir, "saved_model")
    evaluation = [f"--gin_file={ROOT}/gin/eval/digits.gin", "--num_images=8"]
    for parameter in (shrink, "evaluate.evaluators = [@FrechetDistance]"):
        evaluation.append(f"--gin_param={parameter}")
    output = f"--output={tmp_path}/r.json"
    result = run(command("evaluate.py", f"--workdir={workdir}", *evaluation, output))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "SpectralShrink needs what these weights" in result.stderr
    assert "give another --step" not in result.stderr
    succeeded(train_command(workdir, digits_dir, shrink))
    with np.load(os.path.join(workdir, "trust.npz")) as arrays:
        assert arrays["slope"].shape[1:] == (8, 8, 1)
    info = load(os.path.join(exported, "assets.extra", "model_info.json"))
    assert (info["projection"], info["sampler"]) == ("SpectralShrink", "AngleSampler")
    assert info["evaluations"] == info["num_steps"] == 3
    again = succeeded(train_command(workdir, digits_dir, shrink))
    assert "done already" in again.stdout and "exported" not in again.stdout
    succeeded(command("sample.py", f"--saved_model={exported}", f"--output={tmp_path}/a.npz"))
    earlier = [f"--workdir={workdir}", "--step=8", f"--export_dir={tmp_path}/earlier"]
    result = run(command("export.py", *earlier))
    assert result.returncode == 1 and "of the last step's weights alone" in result.stderr


def test_a_run_is_exported_as_it_is_to_be_sampled(workdir, tmp_path):
    def exported(name, *arguments):
        paths = [f"--workdir={workdir}", f"--export_dir={tmp_path / name}"]
        result = run(command("export.py", *paths, *arguments))
        assert "Traceback" not in result.stderr
        return result

    fast = f"--gin_file={ROOT}/gin/sampling/fast.gin"
    assert exported("fast", fast, "--gin_param=sample.num_steps = 2").returncode == 0
    info = load(str(tmp_path / "fast" / "assets.extra" / "model_info.json"))
    assert (info["projection"], info["num_steps"]) == ("SpectralClip", 2)
    assert exported("plain").returncode == 0  # the run itself is as it was
    info = load(str(tmp_path / "plain" / "assets.extra" / "model_info.json"))
    assert (info["projection"], info["num_steps"]) == ("NoProjection", 3)
    other = exported("other", f"--gin_file={ROOT}/gin/base/denoising_diffusion.gin")
    assert other.returncode == 1 and not (tmp_path / "other").exists()
    assert "BlurSchedule.sigma_blur_max: 4.0 in training, 0.0 here" in other.stderr


def test_previews_cannot_wait_for_what_is_measured_at_the_end(tmp_path, digits_dir):
    preview = "train.sample_projection = @SpectralShrink()"
    result = run(train_command(str(tmp_path / "run"), digits_dir, preview))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "train.sample_projection: SpectralShrink needs" in result.stderr
    assert not os.path.exists(str(tmp_path / "run" / "config.gin"))
