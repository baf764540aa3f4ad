"""A run and its SavedModel with files that were cut, lost or written over."""

import contextlib
import io
import json
import os
import resource
import shutil

import numpy as np
import pytest

from bdm_tf.model import load_model, use_config
from bdm_tf.process_figures import draw_to_file
from bdm_tf.sample_files import sample_to_file
from bdm_tf.saved_models import INFO, load_saved_model, model_info, use_saved_config
from bdm_tf.system.errors import TryAgain, UserError
from bdm_tf.weights import restore_average
from tests.conftest import command, run


def refused(arguments):
    result = run(arguments)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr[-3000:]
    return result.stderr


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def test_a_cut_checkpoint_is_named(finished_run, tmp_path):
    workdir = shutil.copytree(finished_run, tmp_path / "run")
    cut(workdir / "checkpoints" / "ckpt-12.data-00000-of-00001")
    arguments = [f"--workdir={workdir}", f"--export_dir={tmp_path / 'e'}"]
    assert "ckpt-12 cannot be read" in refused(command("export.py", *arguments))
    assert run(command("export.py", *arguments, "--step=8")).returncode == 0


def test_a_checkpoint_that_training_deletes_before_it_is_read_may_be_tried_again(finished_run):
    model, _ = load_model(finished_run)
    with pytest.raises(TryAgain, match="ckpt-11 was deleted .* the same command takes the newest"):
        restore_average(model, f"{finished_run}/checkpoints/ckpt-11")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "lacks train.num_steps"),
        (b"Model.image_shape = (8, 8, 1)\n", "lacks train.num_steps"),
        (b"train.num_steps = 4\ntrain.see", "Couldn't parse"),
        (b"\xff\xfe", "can't decode"),
    ],
)
def test_a_damaged_configuration_is_named(content, reason, tmp_path):
    (tmp_path / "config.gin").write_bytes(content)
    with pytest.raises(UserError, match=f"config.gin is damaged: .*{reason}.*; move it away"):
        use_config(str(tmp_path))


def test_a_damaged_configuration_is_told_without_a_trace(finished_run, tmp_path):
    workdir = shutil.copytree(finished_run, tmp_path / "run")
    (workdir / "config.gin").write_bytes(b"\xff\xfe")
    output = f"--output={tmp_path}/f.png"
    told = refused(command("figures.py", f"--workdir={workdir}", "--figure=snr", output))
    assert "config.gin is damaged" in told


def test_a_cut_savedmodel_is_named(finished_run, tmp_path):
    path = shutil.copytree(f"{finished_run}/saved_model", tmp_path / "model")
    for name in ("variables/variables.data-00000-of-00001", "saved_model.pb"):
        cut(path / name)
        with pytest.raises(UserError, match=f"--saved_model={path} is damaged: .*; export it"):
            load_saved_model(str(path))
    told = refused(command("sample.py", f"--saved_model={path}", f"--output={tmp_path}/a.png"))
    assert "is damaged" in told


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda info: {"image_shape": [8, 8, 1]}, "lacks config, ema_decay"),
        (lambda info: {**info, "image_shape": 8}, "lacks image_shape"),
        (lambda info: {**info, "config": "text"}, "lacks config"),
        (lambda info: {**info, "config": {"Model.process": "@@("}}, "Unexpected token"),
        (lambda info: [], "'list'"),
    ],
)
def test_a_savedmodel_that_says_nonsense_of_itself_is_named(change, words, finished_run, tmp_path):
    path = shutil.copytree(f"{finished_run}/saved_model", tmp_path / "model")
    info = json.loads((path / INFO).read_text())
    assert model_info(str(path)) == info
    (path / INFO).write_text(json.dumps(change(info)))
    with pytest.raises(UserError, match=f"{path} is damaged .*{words}.*export it again"):
        use_saved_config(str(path))


SIX = {"num_images": 6, "seed": 0, "first": 0, "num_steps": 1}


@contextlib.contextmanager
def full_disk(most=100):
    """No file may grow beyond so many bytes; a progress bar is none."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("written", ["a.npz", "figure.svg"])
def test_a_full_disk_is_told_and_nothing_half_written_stays(written, finished_run, tmp_path):
    output = str(tmp_path / written)
    with full_disk(), pytest.raises(UserError, match=f"{output} cannot be written") as told:
        if written == "figure.svg":
            draw_to_file("snr", output, workdirs=[finished_run])
        else:
            sample_to_file(f"{finished_run}/saved_model", output, **SIX)
    if written == "a.npz":
        assert "the temporary folder could not take the images" in told.value.message
    assert "make room" in told.value.message and "{{" not in told.value.message
    assert os.listdir(tmp_path) == []


def test_images_that_cannot_be_written_are_kept(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    words = f"make room, .*; the images .* are in {tmp_path}"
    # 1,000 bytes, which an array needs not, and a picture does
    with full_disk(1000), pytest.raises(UserError, match=words) as told:
        sample_to_file(f"{finished_run}/saved_model", f"{tmp_path}/a.png", **SIX)
    assert not (tmp_path / "a.png").exists()
    (kept,) = tmp_path.glob("*/images.npz")
    assert str(kept) in told.value.message
    assert np.load(kept)["images"].shape == (6, 8, 8, 1)
