"""launch/evaluate.py in real processes: every source, kill -9, following a live run."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from tests.conftest import kill_after, run, train_command
from tests.evaluation.conftest import load, rows, succeeded, values

pytestmark = pytest.mark.slow


def test_results_say_what_was_measured_and_how(scored, finished_run):
    results = load(f"{scored}/results.json")
    figures, protocol = results["figures"], results["protocol"]
    assert set(figures) == {
        "fd_pixels_train",
        "kd_pixels_train",
        "precision_train",
        "recall_train",
        "loss",
        "bits_per_dim",
    }
    assert all(np.isfinite(value) for value in values(results).values())
    figure = figures["fd_pixels_train"]
    assert (figure["data_set"], figure["version"], figure["split"]) == (
        "digits",
        "1.0.0",
        "train+test",
    )
    assert (figure["num_generated"], figure["num_real"]) == (60, 1797)
    bits = figures["bits_per_dim"]
    parts = bits["prior"] + bits["diffusion"] + bits["reconstruction"]
    np.testing.assert_allclose(bits["value"], parts)
    assert bits["num_images"] == 359 and bits["standard_error"] > 0
    assert {
        "step": 12,
        "ema_decay": 0.998,
        "sampler": "AngleSampler",
        "projection": "NoProjection",
        "num_steps": 3,
        "seed": 0,
        "num_images": 60,
        "features": "pixels",
        "features_resize": "none",
    }.items() <= protocol.items()
    assert protocol["model"]["BlurSchedule.sigma_blur_max"] == "4.0"
    assert protocol["model"]["FittedGrid.power"] == "1.0"
    assert not [k for k in protocol["model"] if k.startswith(("train.", "evaluate.", "TFDS"))]
    for name in ("features_sha256", "weights_sha256", "versions", "wall_seconds", "finished_at"):
        assert protocol[name]
    assert not [name for name in os.listdir(scored) if name.startswith("samples-")]


def test_the_samples_that_were_kept_score_the_same(tmp_path, scored, evaluate):
    images = np.load(f"{scored}/samples.npz")["images"]
    assert images.shape == (60, 8, 8, 1) and images.dtype == np.uint8
    succeeded(evaluate(f"--images={scored}/samples.npz", f"--output={tmp_path}/r.json"))
    again, before = load(f"{tmp_path}/r.json"), load(f"{scored}/results.json")
    for name in ("fd_pixels_train", "precision_train", "recall_train"):
        np.testing.assert_allclose(values(again)[name], values(before)[name], rtol=1e-9)
    distance = before["figures"]["kd_pixels_train"]  # of other subsets: images are shuffled
    assert abs(values(again)["kd_pixels_train"] - distance["value"]) < distance["std"]
    assert set(again["skipped"]) == {"loss", "bits_per_dim", "label_accuracy"}


def test_the_saved_model_scores_as_the_run_does(tmp_path, finished_run, scored, evaluate):
    out = f"{tmp_path}/r.json"
    succeeded(evaluate(f"--saved_model={finished_run}/saved_model", f"--output={out}"))
    shipped, before = load(out), load(f"{scored}/results.json")
    for name in ("fd_pixels_train", "precision_train", "recall_train"):
        np.testing.assert_allclose(values(shipped)[name], values(before)[name], rtol=2e-3)
    for name in ("weights_sha256", "step", "ema_decay", "sampler", "num_steps"):
        assert shipped["protocol"][name] == before["protocol"][name], name


def test_exported_statistics_give_the_same_distance(tmp_path, scored, finished_run, evaluate):
    given = f"--train_statistics={scored}/statistics/train.npz"
    only = "evaluate.evaluators = [@FrechetDistance]"
    arguments = [f"--images={scored}/samples.npz", f"--output={tmp_path}/r.json", given]
    succeeded(evaluate(*arguments, parameters=[only]))
    found = values(load(f"{tmp_path}/r.json"))["fd_pixels_train"]
    expected = values(load(f"{scored}/results.json"))["fd_pixels_train"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_what_was_measured_is_not_measured_again_nor_overwritten(scored, finished_run, evaluate):
    flags = [f"--workdir={finished_run}", f"--output={scored}/results.json"]
    before = load(f"{scored}/results.json")
    same = succeeded(evaluate(*flags))
    assert "measured already" in same.stdout and "fd_pixels_train" in same.stdout
    other = run(evaluate(*flags, "--seed=1"))
    assert other.returncode == 1 and "Traceback" not in other.stderr
    assert "seed: 0 there, 1 here" in other.stderr and "--overwrite" in other.stderr
    other = run(evaluate(*flags, "--gin_param=FittedGrid.power = 0.5"))
    assert other.returncode == 1 and "FittedGrid.power" in other.stderr
    assert load(f"{scored}/results.json") == before
    # Asked for the samples too, it draws them, and the figures are what they were.
    kept = f"{scored}/new folder/samples.npz"
    succeeded(evaluate(*flags, f"--save_samples={kept}"))
    images = [np.load(path)["images"] for path in (kept, f"{scored}/samples.npz")]
    np.testing.assert_array_equal(*images)
    assert load(f"{scored}/results.json")["figures"] == before["figures"]


def test_an_evaluation_killed_midway_ends_with_the_same_figures(tmp_path, finished_run, evaluate):
    thousand = ["evaluate.num_images = 1000", "evaluate.batch_size = 100"]

    def arguments(folder):
        output = f"--output={tmp_path / folder / 'r.json'}"
        return evaluate(f"--workdir={finished_run}", output, parameters=thousand)

    kill_after(arguments("killed"), rb" (\d+)/1000 ", 300)
    assert not os.path.exists(tmp_path / "killed" / "r.json")
    # A second time, when the samples are there and the weights' turn has come.
    seen = kill_after(arguments("killed"), rb"eval images:.*?(\d+)/359", 0).decode()
    shown = re.findall(r" (\d+)/1000 ", seen)
    assert int(shown[1]) >= 100  # after "0/1000": a finished batch was taken as it is
    resumed = succeeded(arguments("killed"))
    assert "?img/s" in re.findall(r" 1000/1000 .*", resumed.stderr)[-1]  # none was drawn
    succeeded(arguments("whole"))
    killed, whole = (load(tmp_path / f / "r.json") for f in ("killed", "whole"))
    assert killed["figures"] == whole["figures"]


def test_watch_follows_a_live_run_to_its_end(tmp_path, digits_dir, evaluate):
    workdir = str(tmp_path / "live")
    watching = evaluate(f"--workdir={workdir}", "--watch", "--keep_best")
    watcher = subprocess.Popen(
        watching, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert "waiting for a run to begin" in watcher.stdout.readline()
    succeeded(train_command(workdir, digits_dir, "train.keep_every = 4"))
    out, errors = watcher.communicate(timeout=300)
    assert watcher.returncode == 0, errors[-3000:]
    assert "training has ended at step 12" in out
    found = rows(workdir)
    assert [row["step"] for row in found] == [4, 8, 12]
    assert len({row["protocol"]["weights_sha256"] for row in found}) == 3
    best = min(found, key=lambda row: row["figures"]["fd_pixels_train"]["value"])
    best_folder = os.path.join(workdir, "checkpoints", "best")

    def assert_best_is_kept():
        kept = {name.split(".")[0] for name in os.listdir(best_folder)}
        assert kept == {f"ckpt-{best['step']}"}

    assert_best_is_kept()
    assert os.listdir(os.path.join(workdir, "logs", "evaluation"))
    shutil.rmtree(best_folder)
    again = succeeded(watching)
    assert "scoring" not in again.stdout and rows(workdir) == found
    assert_best_is_kept()
    # Another protocol is another measurement.
    other = succeeded(evaluate(f"--workdir={workdir}", "--watch", "--num_images=40"))
    assert other.stdout.count("scoring step") == 3
    assert rows(workdir)[:3] == found and len(rows(workdir)) == 6
    one = f"{tmp_path}/one.json"
    succeeded(evaluate(f"--workdir={workdir}", "--step=8", f"--output={one}"))
    np.testing.assert_allclose(
        list(values(load(one)).values()), list(values(found[1]).values()), rtol=1e-6
    )
