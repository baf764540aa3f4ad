"""Outputs, terminals and places that are not what a command expects."""

import io
import os
import sys

import numpy as np
import pytest
from PIL import Image

from bdm_tf.system.files import write_atomically
from bdm_tf.system.terminal import LastingStream
from tests.conftest import command, run, run_afresh, train_command


def refused(arguments):
    result = run(arguments)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr[-3000:]
    return result.stderr


def test_a_link_that_is_written_stays_one(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "there.png")
    write_atomically(str(tmp_path / "link.png"), b"one")
    write_atomically(str(tmp_path / "link.png"), b"two")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "there.png").read_bytes() == b"two"
    assert sorted(os.listdir(tmp_path)) == ["link.png", "there.png"]


@pytest.mark.parametrize(
    "error, said",
    [
        ("[Errno 2] No usable temporary directory found in ['/tmp']", "set TMPDIR"),
        ("Error executing an HTTP request: could not resolve host", "when the network is there"),
    ],
)
def test_what_the_machine_lacks_is_no_trace(error, said):
    code = (
        "from bdm_tf.system.errors import exits_on_user_error\n\n@exits_on_user_error\n"
        f"def main(_): raise OSError({error!r})\nmain([])"
    )
    result = run_afresh([sys.executable, "-c", code])
    assert result.returncode == 1 and result.stderr.startswith(f"error: {error}")
    assert said in result.stderr and "Traceback" not in result.stderr


def test_a_path_that_is_not_utf_8_is_refused():
    result = run_afresh(command("sample.py", "--saved_model=x", "--output=\udcff.png"))
    assert result.returncode == 1 and "it is not UTF-8" in result.stderr
    assert "Traceback" not in result.stderr


def test_letters_that_a_terminal_lacks_are_spelt_out():
    content = io.BytesIO()
    terminal = io.TextIOWrapper(content, "ascii", write_through=True)
    LastingStream(terminal).write("f\xfcr")
    assert content.getvalue() == b"f\\xfcr"


def test_arrays_of_the_users_are_not_replaced_by_images(finished_run, tmp_path):
    theirs = str(tmp_path / "theirs.npz")
    np.savez(theirs, images=np.zeros(3), labels=np.ones(3))
    model = f"--saved_model={finished_run}/saved_model"
    words = refused(command("sample.py", model, f"--output={theirs}"))
    assert "holds images, labels: it is not replaced by images" in words
    assert np.load(theirs)["labels"].sum() == 3


def test_a_run_does_not_lie_among_its_images(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    words = refused(train_command(tmp_path, f"{tmp_path}/.", gin_file="folder.gin"))
    assert "is --data_dir, too" in words and os.listdir(tmp_path) == ["a.png"]


def test_images_that_are_all_the_same_are_told_before_training(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / "a.png")
    size = "ImageFolder.image_size = 8"
    train = train_command(tmp_path / "run", tmp_path / "images", size, gin_file="folder.gin")
    words = refused(train)
    assert "the training images are all the same" in words and not (tmp_path / "run").exists()


def test_a_folder_that_was_removed_is_told(tmp_path):
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    python = [sys.executable, "-m", "bdm_tf.train", "--gin_file=x"]
    (tmp_path / "gone").mkdir()
    result = run_afresh(["bash", "-c", script, str(tmp_path / "gone"), *python])
    assert result.returncode == 1 and "the current folder was removed" in result.stderr


def test_a_run_is_not_evaluated_on_images_that_it_trains_on(tmp_path, digits_dir):
    split = "TFDSImages.train_split = 'train+test'"
    words = refused(train_command(tmp_path / "run", digits_dir, split))
    assert "share images" in words and not (tmp_path / "run").exists()
