"""launch/evaluate.py in real processes: every source, kill -9, following a live run."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, command, run, train_command

FEW = [
    "evaluate.num_steps = 3",
    "evaluate.num_images = 60",
    "evaluate.batch_size = 20",
    "KernelDistance.subset_size = 30",
    "KernelDistance.subsets = 5",
]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def evaluate(digits_dir, cache_dir):
    """Makes an evaluation's command line."""

    def arguments(*flags, parameters=()):
        bindings = [f"--gin_param={p}" for p in [*FEW, *parameters]]
        gin_file = f"--gin_file={os.path.join(ROOT, 'gin', 'eval', 'digits.gin')}"
        paths = [f"--data_dir={digits_dir}", f"--cache_dir={cache_dir}"]
        return command("evaluate.py", gin_file, *paths, *bindings, *flags)

    return arguments


def succeeded(arguments):
    result = run(arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def load(path):
    with open(path) as file:
        return json.load(file)


def values(results):
    return {name: figure["value"] for name, figure in results["figures"].items()}


@pytest.fixture(scope="session")
def scored(tmp_path_factory, finished_run, digits_dir, cache_dir):
    """Results of the finished run, and its samples."""
    folder = tmp_path_factory.mktemp("scored")
    bindings = [f"--gin_param={p}" for p in FEW]
    gin_file = f"--gin_file={os.path.join(ROOT, 'gin', 'eval', 'digits.gin')}"
    paths = [f"--data_dir={digits_dir}", f"--cache_dir={cache_dir}", f"--workdir={finished_run}"]
    out = [f"--output={folder}/results.json", f"--save_samples={folder}/samples.npz"]
    statistics = f"--export_statistics={folder}/statistics"
    succeeded(command("evaluate.py", gin_file, *paths, *bindings, *out, statistics))
    return str(folder)


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
        "sampler": "AncestralSampler",
        "num_steps": 3,
        "seed": 0,
        "num_images": 60,
        "features": "pixels",
        "features_resize": "none",
    }.items() <= protocol.items()
    assert protocol["model"]["BlurSchedule.sigma_blur_max"] == "4.0"
    assert protocol["model"]["AncestralSampler.last_step"] == "'x_hat'"
    assert not [k for k in protocol["model"] if k.startswith(("train.", "evaluate.", "TFDS"))]
    for name in ("features_sha256", "weights_sha256", "versions", "wall_seconds", "finished_at"):
        assert protocol[name]
    assert not [name for name in os.listdir(scored) if name.startswith("samples-")]


def test_the_samples_that_were_kept_score_the_same(tmp_path, scored, evaluate):
    images = np.load(f"{scored}/samples.npz")["images"]
    assert images.shape == (60, 8, 8, 1) and images.dtype == np.uint8
    succeeded(evaluate(f"--images={scored}/samples.npz", f"--output={tmp_path}/r.json"))
    again, before = load(f"{tmp_path}/r.json"), load(f"{scored}/results.json")
    for name in ("fd_pixels_train", "kd_pixels_train", "precision_train", "recall_train"):
        np.testing.assert_allclose(values(again)[name], values(before)[name], rtol=1e-12)
    assert set(again["skipped"]) == {"loss", "bits_per_dim"}


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
    noisy = run(evaluate(*flags, "--gin_param=AncestralSampler.last_step = 'noisy'"))
    assert noisy.returncode == 1 and "AncestralSampler.last_step" in noisy.stderr
    assert load(f"{scored}/results.json") == before
    # Asked for the samples too, it draws them, and the figures are what they were.
    kept = f"{scored}/new folder/samples.npz"
    succeeded(evaluate(*flags, f"--save_samples={kept}"))
    images = [np.load(path)["images"] for path in (kept, f"{scored}/samples.npz")]
    np.testing.assert_array_equal(*images)
    assert load(f"{scored}/results.json")["figures"] == before["figures"]


def kill_after(arguments, pattern, count):
    """Starts a command and kills it when its progress has reached a count."""
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


def rows(workdir):
    with open(os.path.join(workdir, "results.jsonl")) as file:
        return [json.loads(line) for line in file]


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
    broken = tmp_path / "broken"
    shutil.copytree(finished_run, broken)
    (broken / "checkpoints" / "ckpt-12.data-00000-of-00001").write_bytes(b"short")
    cases = [
        ([f"--workdir={broken}"], "ckpt-12 cannot be read"),
        ([], "give one of --workdir"),
        ([run_flag, f"--images={scored}/samples.npz"], "give one of --workdir"),
        ([f"--workdir={tmp_path / 'empty'}"], "it has no config.gin"),
        ([f"--workdir={tmp_path / 'no checkpoints'}"], "has no checkpoint; steps saved: none"),
        ([run_flag, "--step=7"], "no checkpoint of step 7; steps saved: 4, 8, 12"),
        ([f"--saved_model={tmp_path}"], "is not a SavedModel"),
        ([f"--images={tmp_path}/absent.npz"], "absent.npz cannot be read"),
        ([npz(tmp_path / "nan.npz", images=nans)], "1 of 9 images are not finite, the first is"),
        ([npz(tmp_path / "x.npz", x=nans)], "no array 'images'"),
        ([npz(tmp_path / "big.npz", images=np.full((9, 8, 8, 1), 200.0))], "lie in [-1, 1]"),
        (
            [npz(tmp_path / "unit.npz", images=np.full((9, 8, 8, 1), 0.5))],
            "as if they lay in [0, 1]",
        ),
        ([npz(tmp_path / "s.npz", images=np.zeros((9, 4, 4, 1), np.uint8))], "shape (4, 4, 1)"),
        ([npz(tmp_path / "one.npz", images=np.zeros((1, 8, 8, 1), np.uint8))], "at least 2"),
        (
            [run_flag, "--num_images=20"],
            "at least 30 samples (KernelDistance.subset_size), --num_images=20",
        ),
        ([run_flag, "--num_images=-1"], "--num_images=-1 must be at least 0"),
        ([run_flag, f"--features={tmp_path / 'empty'}"], "is not a SavedModel"),
        ([run_flag, f"--train_statistics={scored}/samples.npz"], "no statistics mu and sigma"),
        ([run_flag, "--eval_statistics=absent.npz"], "absent.npz has no statistics"),
        ([run_flag, "--keep_best"], "--keep_best goes with --watch"),
        ([run_flag, "--gin_param=UNet.channels = 16"], "UNet.channels: 8 in training, 16 here"),
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
    for flags, message in cases:
        result = run(evaluate(*flags, f"--output={tmp_path}/r.json"))
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


def test_a_folder_of_images_is_scored_whatever_its_name(tmp_path, cache_dir):
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(random.integers(0, 256, (8, 8)).astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "bad.png").write_bytes(b"no image")
    np.savez(tmp_path / "a.npz", images=random.integers(0, 256, (20, 8, 8, 1)).astype(np.uint8))
    source = ["evaluate.data = @ImageFolder()", "ImageFolder.image_size = 8"]
    settings = [*source, "ImageFolder.channels = 1", "KernelDistance.subset_size = 5"]
    bindings = [f"--gin_param={setting}" for setting in settings]
    gin_file = f"--gin_file={os.path.join(ROOT, 'gin', 'eval', 'base.gin')}"

    def scored(data_dir, *flags):
        out = [f"--images={tmp_path}/a.npz", f"--output={tmp_path}/r.json", "--features=pixels"]
        paths = [f"--data_dir={data_dir}", f"--cache_dir={cache_dir}"]
        return run(command("evaluate.py", gin_file, *bindings, *out, *paths, *flags))

    damaged = scored(folder)
    assert damaged.returncode == 1 and "--on_corrupt_image=skip" in damaged.stderr
    skipped = scored(folder, "--on_corrupt_image=skip")
    assert skipped.returncode == 0, skipped.stderr[-2000:]
    results = load(tmp_path / "r.json")
    assert {"fd_pixels_train", "kd_pixels_train", "precision_train"} <= results["figures"].keys()
    assert results["skipped"]["fd_pixels_eval"] == "the data set has no eval split"
    (folder / "bad.png").unlink()
    folder.rename(tmp_path / "renamed")
    again = scored(f"{tmp_path}/renamed/")
    assert "measured already" in again.stdout, again.stderr[-2000:]
