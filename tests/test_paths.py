"""Paths as people give them, and places that cannot be written to."""

import os

import pytest
import tensorflow as tf

from bdm_tf import config
from bdm_tf.data import ImageFolder, TFDSImages
from bdm_tf.diffusion.bases import MatrixBasis
from bdm_tf.evaluation.features import InceptionFeatures, SavedModelFeatures
from bdm_tf.export_folders import only_export_to
from bdm_tf.exporting import export
from bdm_tf.model import load_model
from bdm_tf.sample_files import sample_to_file
from bdm_tf.saved_models import model_info
from bdm_tf.system.checkpoint_files import weights_to_start_from
from bdm_tf.system.errors import UserError
from bdm_tf.system.paths import check_literal, default_cache_dir
from bdm_tf.training import loop
from tests.conftest import command, run, train_command


def test_of_a_flag_that_takes_one_value_the_last_counts_and_a_warning_says_so():
    result = run(command("train.py", "--workdir=a", "--workdir=b"))
    assert result.returncode == 1 and "--gin_file is missing" in result.stderr
    assert "--workdir is given 2 times; the last one counts: b" in result.stderr


def refused(arguments):
    result = run(arguments)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr[-3000:]
    return result.stderr


@pytest.mark.parametrize("character", "[]*?\\")
def test_a_path_that_is_a_pattern_is_refused_before_anything_is_written(character, tmp_path):
    with pytest.raises(UserError, match="takes for a pattern"):
        check_literal("--workdir", f"lr={character}1e-3")
    if character == "[":
        workdir = tmp_path / "lr=[1e-3]"
        assert "takes for a pattern" in refused(train_command(workdir, tmp_path))
        assert not workdir.exists()


@pytest.mark.parametrize(
    "script, flag, words",
    [
        ("train.py", "--workdir=~nobody_here/run", "there is no user nobody_here"),
        ("sample.py", "--output=~nobody_here/a.png", "there is no user nobody_here"),
        ("evaluate.py", "--cache_dir=~nobody_here", "there is no user nobody_here"),
        ("train.py", "--init_from=ckpt-*", "takes for a pattern"),
        ("export.py", "--export_dir=x[1]", "takes for a pattern"),
        ("sample.py", "--saved_model=x?", "takes for a pattern"),
        ("figures.py", "--gin_file=a.gin++b.gin", "--gin_file=a.gin++b.gin has no file before"),
        ("figures.py", "--seed=-1", "--seed=-1 must be a whole number from 0 to 2147483647"),
    ],
)
def test_flags_are_looked_at_first(script, flag, words):
    beside = ["--gin_file=x", "--output=x.png"] if script == "figures.py" else []
    result = run(command(script, *beside, flag))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert words in result.stdout + result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["export.py", "--workdir=s3://b/x", "--export_dir=y"],
        ["evaluate.py", "--workdir=s3://b/x", "--watch"],
        ["sample.py", "--saved_model=x", "--output=s3://b/x.png"],
    ],
)
def test_a_file_system_that_tensorflow_has_not_is_named(arguments):
    assert "no file system s3://" in refused(command(*arguments))


def test_python_too_is_told_of_a_file_system_and_a_step_that_cannot_be(finished_run):
    with pytest.raises(UserError, match="TensorFlow has no file system foo://"):
        load_model("foo://x")
    with pytest.raises(UserError, match="step='12' must be a whole number"):
        load_model(finished_run, "12")


def test_the_home_folder_is_the_users(tmp_path):
    words = refused(command("sample.py", "--saved_model=~/nothing", f"--output={tmp_path}/a.png"))
    assert f"--saved_model={os.path.expanduser('~')}/nothing is not there" in words
    words = refused(command("figures.py", "--workdir=~/nothing", f"--output={tmp_path}/a.png"))
    assert f"{os.path.expanduser('~')}/nothing" in words


def test_the_home_folder_is_the_users_in_python_and_gin_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text("mine")
    config.parse(["digits.gin"], [])
    numbers = {"num_images": 1, "seed": 0, "first": 0, "num_steps": 0}
    for use in (
        lambda: load_model("~/x"),
        lambda: export(None, 0, "~/"),
        lambda: sample_to_file("~/x", "~/a.png", **numbers),
        lambda: loop.train("~/", tf.distribute.get_strategy(), print),
        lambda: weights_to_start_from("~/x"),
        lambda: SavedModelFeatures("~/x"),
        lambda: InceptionFeatures("~/x.pb"),
        lambda: MatrixBasis(path="~/x.npz"),
    ):
        with pytest.raises(UserError, match=str(tmp_path)):
            use()
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_an_empty_home_is_not_the_root_folder(monkeypatch):
    monkeypatch.setenv("HOME", "")
    for name in ("TFDS_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for use, instead in (
        (lambda: TFDSImages("digits").load(), "--data_dir"),
        (lambda: default_cache_dir("--cache_dir"), "--cache_dir"),
        (lambda: InceptionFeatures(), "--features"),
        (lambda: load_model("~/x"), "a path without ~"),
    ):
        with pytest.raises(UserError, match=f"HOME is empty; set it, or give {instead}"):
            use()
    assert "HOME is empty" in refused(command("sample.py", "--saved_model=~", "--output=a.png"))


def test_a_relative_cache_folder_is_ignored_and_said(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert default_cache_dir() == str(tmp_path / ".cache" / "bdm_tf")
    assert "XDG_CACHE_HOME=caches is relative, and so ignored" in caplog.text
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert default_cache_dir() == str(tmp_path / "caches" / "bdm_tf")


def test_what_is_no_path_is_refused_in_python():
    config.parse(["digits.gin"], [])
    strategy = tf.distribute.get_strategy()
    for use, name in (
        (lambda: load_model(b"x"), "workdir"),
        (lambda: loop.train(b"x", strategy, print), "workdir"),
        (lambda: loop.train("x", strategy, print, data_dir=b"x"), "data_dir"),
        (lambda: TFDSImages("digits").load(b"x"), "data_dir"),
        (lambda: ImageFolder(4).load(b"x"), "data_dir"),
        (lambda: export(None, 0, b"x"), "export_dir"),
    ):
        with pytest.raises(UserError, match=f"{name}=b'x' must be a path, as text"):
            use()


def test_output_that_cannot_be_written_is_found_before_a_model_is_read(tmp_path):
    (tmp_path / "taken.png").mkdir()
    numbers = {"num_images": 1, "seed": 0, "first": 0, "num_steps": 0}
    for output, words in (("taken.png", "is a folder"), ("/proc/none/a.png", "cannot be written")):
        with pytest.raises(UserError, match=f"{output} {words}"):
            sample_to_file("no model", os.path.join(tmp_path, output), **numbers)
    assert os.listdir(tmp_path) == ["taken.png"]


def test_an_export_that_cannot_be_written_says_why(finished_run):
    with pytest.raises(UserError, match="written to /proc/x: .*; mend that"):
        export(load_model(finished_run)[0], 12, "/proc/x")


def test_two_exports_to_one_folder_do_not_mix(finished_run, tmp_path):
    model, step = load_model(finished_run)
    target = str(tmp_path / "new" / "model")
    with only_export_to(target), pytest.raises(UserError, match="another process exports to"):
        export(model, step, target)
    export(model, step, target)
    assert os.listdir(tmp_path / "new") == ["model"] and model_info(target)["step"] == step
    with pytest.raises(UserError, match="exists; give --overwrite"):
        export(model, step, target)
