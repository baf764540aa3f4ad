"""Files of the user's that stay, and names that are no names."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image

from bdm_tf import config, exporting  # noqa: F401, exporting for gin
from bdm_tf.data import ImageFolder, TFDSImages
from bdm_tf.evaluation.results import ResultLog, finished
from bdm_tf.export_folders import check_free
from bdm_tf.image_grids import write_grid
from bdm_tf.model import load_model
from bdm_tf.process_figures.drawing import encoded
from bdm_tf.saved_models import model_info
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import (
    check_replaces,
    check_writable,
    replace_folder,
    set_aside,
    why_not_written,
    write_atomically,
    write_npz,
)
from bdm_tf.training import loop  # noqa: F401, for gin
from bdm_tf.training.workdir import Workdir
from tests.conftest import command, run, train_command
from tests.test_places import refused

NOTE = '{"theirs": 1}'


def test_pictures_and_samples_replace_those_of_this_library_alone(tmp_path):
    thesis, samples = tmp_path / "thesis.png", str(tmp_path / "samples.npz")
    images = np.zeros((4, 8, 8, 1), np.uint8)
    thesis.write_text("years of work")
    for _ in range(2):  # text of that name, then a photograph
        with pytest.raises(UserError, match="thesis.png was not made by this library"):
            check_writable(str(thesis))
        Image.new("L", (2, 2)).save(thesis)
    np.savez(samples, images=images)
    with pytest.raises(UserError, match="samples.npz was not made by this library"):
        check_replaces(samples, ["images"])
    write_grid(images, str(thesis))
    write_npz(samples, {"images": images})
    check_writable(str(thesis))
    check_replaces(samples, ["images"])
    thesis.unlink()
    os.remove(samples)
    for extension in ("png", "pdf", "svg"):
        (tmp_path / f"a.{extension}").write_bytes(encoded(Figure(), extension))
        check_writable(str(tmp_path / f"a.{extension}"))
        (tmp_path / f"a.{extension}").unlink()
    thesis.write_text("")
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/null"):
        with pytest.raises(UserError, match="is a pipe or a device"):
            check_writable(str(path))
    assert sorted(os.listdir(tmp_path)) == ["pipe.png", "thesis.png"]


@pytest.mark.parametrize(
    "name", ["assets/notes.txt", "saved_model_scores.csv", "variables/thesis.tex", "assets.extra/a"]
)
def test_a_file_of_the_users_in_a_savedmodel_keeps_it(name, tmp_path, finished_run):
    for folder in (tmp_path / "model", tmp_path / "new.partial", tmp_path / "old.replaced"):
        shutil.copytree(os.path.join(finished_run, "saved_model"), folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
        with pytest.raises(UserError, match=f"holds {name}, which is of no SavedModel"):
            check_free(str(folder.with_suffix("")), overwrite=True)


def test_a_savedmodel_that_cannot_be_replaced_stays(tmp_path):
    there, new = tmp_path / "there", tmp_path / "new"
    for folder in (there, new):
        folder.mkdir()
        (folder / "name.txt").write_text(folder.name)
    replace_folder(str(new), str(there))
    assert os.listdir(tmp_path) == ["there"] and (there / "name.txt").read_text() == "new"
    with pytest.raises(tf.errors.OpError):
        replace_folder(str(new), str(there))  # there is none any more
    assert os.listdir(tmp_path) == ["there"] and (there / "name.txt").read_text() == "new"


def test_what_lies_in_the_place_of_a_grid_is_kept(tmp_path, caplog):
    grid = tmp_path / "step_00000008.png"
    grid.write_text("mine")
    set_aside(str(grid))
    assert (tmp_path / "step_00000008.png.kept1").read_text() == "mine"
    assert "it is now" in caplog.text
    write_grid(np.zeros((4, 8, 8, 1), np.uint8), str(grid))
    set_aside(str(grid))
    assert grid.exists()


def test_a_run_does_not_begin_in_a_savedmodel_or_within_another_run(finished_run):
    for name, words in (("saved_model", "is a SavedModel"), ("samples", "the folder samples of")):
        with pytest.raises(UserError, match=words):
            Workdir(os.path.join(finished_run, name))


def test_a_link_to_nowhere_is_found_before_anything_is_drawn(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "absent" / "there.png")
    with pytest.raises(UserError, match="link.png cannot be written: .*; mend that"):
        check_writable(str(tmp_path / "link.png"))


def test_the_longest_name_that_may_be_can_be_written(tmp_path):
    longest = str(tmp_path / ("a" * 251 + ".png"))
    check_writable(longest)
    write_atomically(longest, b"x")
    assert os.listdir(tmp_path) == [os.path.basename(longest)]
    with pytest.raises(UserError, match="File name too long; mend that"):
        check_writable(str(tmp_path / ("a" * 252 + ".png")))


def test_room_is_asked_for_where_there_is_none():
    assert "make room, and give the same command again" in why_not_written(
        OSError(28, "No space left")
    )
    assert "make room" not in why_not_written(OSError(13, "Permission denied"))


def test_images_that_are_scored_are_not_replaced_by_the_samples(tmp_path):
    images = str(tmp_path / "theirs.npz")
    np.savez(images, images=np.zeros((9, 8, 8, 1), np.uint8))
    evaluate = command("evaluate.py", f"--images={images}", "--gin_file=gin/eval/digits.gin")
    words = refused([*evaluate, f"--save_samples={tmp_path}/./theirs.npz"])
    assert "is --images, too: it would be replaced" in words


def test_a_user_that_there_is_not_has_no_home(tmp_path):
    words = refused(command("sample.py", "--saved_model=x", "--output=~nobody-here/x.png"))
    assert "there is no user nobody-here" in words


def test_a_parameter_that_a_part_needs_is_named(tmp_path):
    words = refused(train_command(tmp_path / "run", tmp_path, "train.data = @ImageFolder()"))
    assert 'ImageFolder.image_size is missing: give --gin_param="ImageFolder.image_size' in words


def test_a_number_of_steps_beyond_the_counter_is_refused_before_training(tmp_path, digits_dir):
    words = refused(train_command(tmp_path / "run", digits_dir, "sample.num_steps = 2147483648"))
    assert "sample.num_steps=2147483648 must be a whole number" in words and "2^31" in words
    assert not (tmp_path / "run").exists()


def test_the_images_of_a_run_are_what_they_were(finished_run, tmp_path):
    export = command("export.py", f"--workdir={finished_run}", f"--export_dir={tmp_path}/exported")
    words = refused([*export, "--gin_param=TFDSImages.name = 'mnist'"])
    assert "TFDSImages.name: 'digits' in training, 'mnist' here" in words


def test_another_network_than_the_checkpoints_is_said_once(finished_run, tmp_path):
    for name in ("checkpoints", "spectrum.npz"):
        if os.path.exists(f"{finished_run}/{name}"):
            (tmp_path / name).symlink_to(f"{finished_run}/{name}")
    with open(f"{finished_run}/config.gin") as file:
        text = file.read()
    assert "UNet.channels = 8" in text
    (tmp_path / "config.gin").write_text(text.replace("UNet.channels = 8", "UNet.channels = 16"))
    with pytest.raises(UserError, match="is of another network: .* Bring back the config.gin"):
        load_model(str(tmp_path))


def test_a_folder_in_the_place_of_results_is_told(tmp_path):
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(UserError, match="results.jsonl is a folder, where results go"):
        ResultLog(str(tmp_path / "results.jsonl"))


@pytest.mark.parametrize("name", ["", "../../etc", "/etc", "a b"])
def test_what_is_no_name_of_a_data_set_is_refused(name):
    with pytest.raises(UserError, match="is no name of a data set, such as 'cifar10'"):
        TFDSImages(name)


def pictures(folder, *colours):
    folder.mkdir(parents=True)
    for colour in colours:
        Image.new("L", (8, 8), colour).save(folder / f"{colour}.png")


def test_copies_of_training_images_are_warned_of(tmp_path, caplog):
    pictures(tmp_path / "train", 1, 2, 3)
    pictures(tmp_path / "val", 3, 4)
    ImageFolder(8, channels=1).load(str(tmp_path))
    assert "1 of the 2 images of" in caplog.text and "training images too" in caplog.text


def test_folders_that_are_all_trained_on_are_named(tmp_path, capsys):
    pictures(tmp_path / "trn", 1, 2)
    pictures(tmp_path / "tst", 3)
    ImageFolder(8, channels=1).load(str(tmp_path))
    assert "3 images, all trained on, of 2 folders: trn, tst" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["trainer.json", "history.json", "metrics.jsonl", "failed.txt"])
def test_notes_of_others_do_not_make_a_folder_a_run(name, tmp_path, digits_dir):
    (tmp_path / name).write_text(NOTE)
    result = run(train_command(tmp_path, digits_dir, "train.num_steps = 1"))
    assert (tmp_path / name).read_text() == NOTE
    if name == "failed.txt":  # which no run writes
        assert result.returncode == 0, result.stderr[-2000:]
    else:
        assert result.returncode == 1 and f"holds {name}, but no run" in result.stderr
        assert os.listdir(tmp_path) == [name]


def test_one_file_is_not_two_outputs(tmp_path):
    evaluate = command("evaluate.py", "--saved_model=x", "--gin_file=gin/eval/digits.gin")
    words = refused([*evaluate, f"--output={tmp_path}/a.npz", f"--save_samples={tmp_path}/./a.npz"])
    assert "two outputs are one file" in words


def test_json_of_the_users_is_no_result_to_be_replaced(tmp_path):
    theirs = tmp_path / "my.json"
    theirs.write_text('{"my": "data of a month"}')
    with pytest.raises(UserError, match="my.json holds no results: give another --output"):
        finished(str(theirs), {}, overwrite=True)
    theirs.write_text('{\n  "figures": {"cut')
    assert finished(str(theirs), {}, overwrite=True) is None


@pytest.mark.parametrize(
    "bindings, message",
    [
        (["X = %X", "train.batch_size = %X"], "a macro must not be made of itself"),
        (["X = %Y", "Y = %X"], "a macro must not be made of itself"),
        (["train.batch_size = %nowhere"], "nothing sets %nowhere; give nowhere = ..."),
    ],
)
def test_macros_that_lead_nowhere_are_named(bindings, message):
    with pytest.raises(UserError, match=message):
        config.parse(["gin/digits.gin"], bindings)
    config.parse(["gin/digits.gin"], ["X = 8", "train.batch_size = %X", "TFDSImages.name = '5%'"])


@pytest.mark.parametrize(
    "name, value", [("chunk_size", 0), ("allowed_num_steps", 5), ("image_shape", [8])]
)
def test_what_a_savedmodel_says_wrongly_of_itself_is_named(name, value, finished_run, tmp_path):
    shutil.copytree(f"{finished_run}/saved_model", tmp_path / "model")
    path = tmp_path / "model" / "assets.extra" / "model_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(UserError, match=f"is damaged .*lacks {name}"):
        model_info(str(tmp_path / "model"))


def test_a_damaged_end_is_made_again(finished_run, tmp_path, digits_dir):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    shutil.rmtree(workdir / "saved_model" / "variables")
    (workdir / "samples" / "final.png").write_bytes(b"")
    result = run(train_command(workdir, digits_dir))
    assert result.returncode == 0 and "exporting" in result.stdout, result.stderr[-2000:]
    assert (workdir / "saved_model" / "variables" / "variables.index").exists()
    assert (workdir / "samples" / "final.png").stat().st_size > 100
