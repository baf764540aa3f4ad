"""What launch/evaluate.py says to wrong input, and does without part of it, in real processes."""

import os

import numpy as np
import pytest
from PIL import Image

from tests.conftest import command, run
from tests.evaluation.conftest import load, succeeded

pytestmark = pytest.mark.slow


def npz(path, **arrays):
    np.savez(path, **arrays)
    return f"--images={path}"


def test_wrong_input_gets_a_clear_message(tmp_path, finished_run, scored, evaluate):
    nans = np.zeros((9, 8, 8, 1), np.float32)
    nans[4, 0, 0, 0] = np.nan
    twice = "[@FrechetDistance, @FrechetDistance]"
    run_flag = f"--workdir={finished_run}"
    (tmp_path / "empty").mkdir()
    (tmp_path / "no checkpoints").mkdir()
    os.link(f"{finished_run}/config.gin", tmp_path / "no checkpoints" / "config.gin")
    cases = [
        ([], "give one of --workdir"),
        ([run_flag, f"--images={scored}/samples.npz"], "give one of --workdir"),
        ([f"--workdir={tmp_path / 'empty'}"], "it has no config.gin"),
        ([f"--workdir={tmp_path / 'no checkpoints'}"], "has no checkpoint; steps saved: none"),
        ([run_flag, "--step=7"], "no checkpoint of step 7; steps saved: 4, 8, 12"),
        ([f"--saved_model={tmp_path}"], "is not a SavedModel"),
        ([f"--images={tmp_path}/absent.npz"], "absent.npz cannot be read"),
        ([npz(tmp_path / "nan.npz", images=nans)], "1 of 9 images are not finite, the first is"),
        ([npz(tmp_path / "x.npz", x=nans, y=nans)], "the images must be called 'images'"),
        (
            [npz(tmp_path / "first.npz", images=np.zeros((9, 1, 8, 8), np.uint8))],
            "it seems to be [N, C, H, W]: give images.transpose(0, 2, 3, 1)",
        ),
        (
            [npz(tmp_path / "under.npz", images=np.r_[nans[:4] - 1e-4, nans[5:] + 1.0])],
            "as if they lay in [0, 1]",
        ),
        ([npz(tmp_path / "big.npz", images=np.full((9, 8, 8, 1), 200.0))], "lie in [-1, 1]"),
        (
            [npz(tmp_path / "unit.npz", images=np.full((9, 8, 8, 1), 0.5))],
            "as if they lay in [0, 1]",
        ),
        ([npz(tmp_path / "s.npz", images=np.zeros((9, 4, 4, 1), np.uint8))], "shape (4, 4, 1)"),
        ([npz(tmp_path / "one.npz", images=np.zeros((1, 8, 8, 1), np.uint8))], "at least 2"),
        ([run_flag, f"--save_samples={tmp_path}.npz/.."], "must end in .npz"),
        ([run_flag, "--seed=2147483648"], "--seed=2147483648 must be a whole number from 0 to"),
        ([run_flag, "--output=/proc/none/r.json"], "/proc/none/r.json cannot be written"),
        ([run_flag, "--num_images=-1"], "--num_images=-1 must be at least 0"),
        ([run_flag, "--batch_size=10001"], "batch_size=10001 must be a whole number"),
        ([run_flag, f"--features={tmp_path / 'empty'}"], "is not a SavedModel"),
        ([run_flag, f"--train_statistics={scored}/samples.npz"], "no statistics mu and sigma"),
        ([run_flag, "--eval_statistics=absent.npz"], "absent.npz has no statistics"),
        ([run_flag, "--keep_best"], "--keep_best goes with --watch"),
        ([run_flag, "--gin_param=UNet.channels = 16"], "UNet.channels: 8 in training, 16 here"),
        (
            [f"--saved_model={finished_run}/saved_model", "--gin_param=sample.num_steps = 2"],
            "a SavedModel is scored as it stands",
        ),
        ([f"--images={scored}/samples.npz", "--num_images=0"], "there is nothing to measure"),
        ([run_flag, "--save_samples=/proc/none/a.npz"], "/proc/none/a.npz cannot be written"),
        ([run_flag, f"--gin_param=evaluate.evaluators = {twice}"], "measures a figure twice"),
        (
            [run_flag, "--gin_param=evaluate.best_by = 'fid'"],
            "best_by='fid' must be one of fd_pixels",
        ),
        ([run_flag, "--gin_param=evaluate.evaluators = [@Frechet]"], "Frechet"),
        ([run_flag, "--gin_param=FrechetDistance.split = 'test'"], "test"),
    ]
    commands = [(evaluate(f"--output={tmp_path}/r.json", *flags), words) for flags, words in cases]
    images = f"--images={scored}/samples.npz"
    no_protocol = command("evaluate.py", "--gin_file=gin/digits.gin", images)
    commands.append((no_protocol, "['features', 'evaluators']: give a file of gin/eval"))
    for flags, message in commands:
        result = run(flags)
        assert result.returncode == 1, (flags, result.stdout, result.stderr[-2000:])
        assert message in result.stderr, (flags, result.stderr[-2000:])
        assert "Traceback" not in result.stderr, flags


def test_metrics_that_cannot_be_had_are_named_and_the_others_measured(
    tmp_path, finished_run, evaluate
):
    everything = "evaluate.evaluators = [@InceptionScore, @FrechetDistance, @FrechetFloor]"
    out = f"{tmp_path}/r.json"
    result = succeeded(
        evaluate(f"--workdir={finished_run}", f"--output={out}", parameters=[everything])
    )
    reason = "the features 'pixels' have no logits"
    assert load(out)["skipped"] == {"inception_score": reason} and reason in result.stdout
    assert set(load(out)["figures"]) == {"fd_pixels_train", "fd_pixels_eval_to_train"}
    weights_only = succeeded(
        evaluate(f"--workdir={finished_run}", "--num_images=0", f"--output={tmp_path}/w.json")
    )
    assert set(load(f"{tmp_path}/w.json")["figures"]) == {"loss", "bits_per_dim"}
    assert "samples" not in weights_only.stderr
    few = succeeded(
        evaluate(f"--workdir={finished_run}", "--num_images=20", f"--output={tmp_path}/few.json")
    )
    reason = "it needs at least 30 samples (KernelDistance.subset_size), there are 20"
    assert reason in few.stdout and reason in load(f"{tmp_path}/few.json")["skipped"].values()
    assert "fd_pixels_train" in load(f"{tmp_path}/few.json")["figures"]


def test_a_folder_of_images_is_scored_whatever_its_name(tmp_path, cache_dir, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", cache_dir)  # where the cache is unless told
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(random.integers(0, 256, (8, 8)).astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "bad.png").write_bytes(b"no image")
    np.savez(tmp_path / "a.npz", images=random.integers(0, 256, (20, 8, 8, 1)).astype(np.uint8))
    settings = ["ImageFolder.image_size = 8", "ImageFolder.channels = 1"]
    settings += ["KernelDistance.subset_size = 5", "evaluate.num_images = 15"]
    bindings = [f"--gin_param={setting}" for setting in settings]
    gin_files = ["--gin_file=gin/folder.gin", "--gin_file=gin/eval/base.gin"]

    def scored(data_dir, *flags):
        out = [f"--images={tmp_path}/a.npz", f"--output={tmp_path}/r.json", "--features=pixels"]
        return run(
            command("evaluate.py", *gin_files, *bindings, *out, f"--data_dir={data_dir}", *flags)
        )

    damaged = scored(folder)
    assert damaged.returncode == 1 and "--on_corrupt_image=skip" in damaged.stderr
    skipped = scored(folder, "--on_corrupt_image=skip")
    assert skipped.returncode == 0, skipped.stderr[-2000:]
    assert "scoring 15 of the 20 images, drawn at random" in skipped.stdout
    results = load(tmp_path / "r.json")
    assert {"fd_pixels_train", "kd_pixels_train", "precision_train"} <= results["figures"].keys()
    assert results["skipped"]["fd_pixels_eval"] == "the data set has no eval split"
    (folder / "bad.png").unlink()
    folder.rename(tmp_path / "renamed")
    again = scored(f"{tmp_path}/renamed/")
    assert "measured already" in again.stdout, again.stderr[-2000:]
