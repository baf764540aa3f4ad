"""`launch/sample.py`: the way to images, the way between two, and what they share."""

import functools
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bdm_tf import sample_files
from bdm_tf.relations import Relation
from bdm_tf.sample_files import sample_to_file
from bdm_tf.saved_models import INFO, load_saved_model
from bdm_tf.system.errors import UserError
from tests.conftest import command, run
from tests.test_places import refused

LOADED = functools.cache(load_saved_model)
DRAWN = dict(num_images=None, seed=7, first=0, num_steps=0)
RANDOM = {"draws_noise": True, "sampler": "AncestralSampler", "prior": "StandardNormal"}


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    monkeypatch.setattr(sample_files, "load_saved_model", LOADED)


@pytest.fixture(scope="module")
def saved_model(finished_run):
    return os.path.join(finished_run, "saved_model")


@pytest.fixture(scope="module")
def of_classes(labelled_run):
    return os.path.join(labelled_run, "saved_model")


def drawn(saved_model, folder, **given):
    output = str(folder / "drawn.npz")
    sample_to_file(saved_model, output, **DRAWN | given)
    with np.load(output) as arrays:
        return arrays["images"].astype(int)


def test_the_strip_ends_in_the_images_that_are_drawn(saved_model, tmp_path):
    strip, film = (str(tmp_path / f"way.{ending}") for ending in ("png", "gif"))
    result = run(
        command("sample.py", f"--saved_model={saved_model}", f"--trajectory={strip}", "--seed=7")
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "wrote the way of 4 images" in result.stdout and "t = 1, " in result.stdout
    images = drawn(saved_model, tmp_path, num_images=4, trajectory=film, num_frames=3)
    small = np.asarray(Image.open(strip))
    factor = small.shape[0] // (8 * 9 - 1)
    small = small[::factor, ::factor].astype(int)
    assert small.shape == (8 * 9 - 1, 4 * 9 - 1)  # 3 steps: 4 frames
    for row in range(8):
        last = small[9 * row : 9 * row + 8, -8:]
        assert np.abs(last - images[row // 2, ..., 0]).max() <= 1
        assert np.abs(small[9 * row : 9 * row + 8, :8] - last).mean() > 10
    with Image.open(film) as frames:
        assert frames.n_frames == 3
        frames.seek(2)
        last = np.asarray(frames.convert("L")).astype(int)
    factor = last.shape[0] // (4 * 9 - 1)
    last = last[::factor, ::factor]
    assert np.abs(last[:8, -8:] - images[0, ..., 0]).max() <= 1
    sample_to_file(saved_model, None, trajectory=film, **DRAWN)  # its own is replaced
    Image.new("L", (2, 2)).save(film)
    with pytest.raises(UserError, match="way.gif was not made by this library"):
        sample_to_file(saved_model, None, trajectory=film, **DRAWN)


def test_a_way_between_two_seeds_ends_in_their_images(saved_model, tmp_path):
    way = drawn(saved_model, tmp_path, num_images=6, first=1, relation=Relation(towards=9))
    for end, seed in ((0, 7), (-1, 9)):
        image = drawn(saved_model, tmp_path, num_images=1, seed=seed, first=1)[0]
        assert np.abs(way[end] - image).max() <= 1
    assert all((a != b).any() for a, b in zip(way, way[1:]))


def test_one_start_is_drawn_in_each_class(of_classes, tmp_path):
    found = drawn(of_classes, tmp_path, label="each", relation=Relation("start"))
    assert len(found) == 10
    for number in (0, 9):
        alone = drawn(of_classes, tmp_path, num_images=1, label=str(number))[0]
        assert np.abs(found[number] - alone).max() <= 1


@pytest.mark.parametrize(
    "relation, more, label, words",
    [
        (Relation("noise"), {"draws_noise": False}, None, "share=noise: .* draws no noise in its"),
        (Relation("start"), {"draws_noise": False}, None, "all images would be the same"),
        (Relation(None, 9), {"prior": "BlurredImages"}, None, "begin in BlurredImages, not in"),
        (Relation(None, 9), {"class_names": ["a", "b"]}, "each", "give --label=CLASS"),
        (Relation(None, 9), {"class_names": ["a", "b"]}, None, "give --label=CLASS"),
    ],
)
def test_what_has_no_meaning_for_a_model_is_refused(relation, more, label, words):
    with pytest.raises(UserError, match=words):
        relation.check(RANDOM | more, label)
    relation.check(RANDOM, None)


def test_a_sampler_that_forgets_its_start_is_warned_of(caplog):
    Relation(None, 9).check(RANDOM | {"draws_noise": False}, None)
    Relation("noise").check(RANDOM, None)
    assert not caplog.records
    Relation(None, 9).check(RANDOM, None)
    assert "AncestralSampler draws noise in its steps and soon forgets" in caplog.text


def test_what_is_shared_does_not_depend_on_the_chunk():
    whole = Relation(None, 9).given(3, 0, 5, 5)["weight"].numpy()
    parts = [Relation(None, 9).given(3, p, n, 5)["weight"].numpy() for p, n in ((0, 2), (2, 3))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert {k: int(v) for k, v in Relation("noise").given(3, 4, 2, 9).items()} == {"noise_of": 0}


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--share=step"], "<noise|start>"),
        (["--interpolate=5", "--share=start"], "does not go with --interpolate"),
        (["--interpolate=0"], "--interpolate=0 is --seed, too"),
        (["--interpolate=-1"], "--interpolate=-1 must be a whole number"),
        (["--interpolate=5", "--num_images=1"], "give --num_images=2 or more"),
        (["--trajectory=way.jpg"], "--trajectory=way.jpg must end in .png or .gif"),
        (["--trajectory=./out.png"], "is --output, too"),
        (["--num_frames=5"], "--num_frames goes with --trajectory"),
        (["--trajectory=way.png", "--num_frames=1"], "must lie between 2 and"),
        (["--trajectory=way.png", "--num_frames=9"], "3 steps have 4 frames"),
        (["--trajectory=~/.."], "must end in .png or .gif"),
    ],
)
def test_mistakes_are_answered_in_words(flags, words, saved_model, tmp_path):
    paths = [f.replace("=way", f"={tmp_path}/way").replace("=./", f"={tmp_path}/./") for f in flags]
    output = f"--output={tmp_path}/out.png"
    said = refused(command("sample.py", f"--saved_model={saved_model}", output, *paths))
    assert words.replace("=way", f"={tmp_path}/way") in said
    assert not os.listdir(tmp_path)


def test_a_folder_and_a_model_of_before_are_refused(saved_model, tmp_path):
    (tmp_path / "way.png").mkdir()
    with pytest.raises(UserError, match="way.png is a folder"):
        sample_to_file(saved_model, None, trajectory=str(tmp_path / "way.png"), **DRAWN)
    old = shutil.copytree(saved_model, tmp_path / "old")
    info = json.loads((old / INFO).read_text())
    del info["draws_noise"]
    (old / INFO).write_text(json.dumps(info))
    with pytest.raises(UserError, match="was made before .*: export it again"):
        sample_to_file(str(old), None, trajectory=str(tmp_path / "a.png"), **DRAWN)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"num_images": 5}, "num_images must be at most 4"),
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"num_frames": 5}, "num_frames must be at most one more than the steps"),
        ({"weight": [float("nan")]}, r"weight must lie in \[0, 1\]"),
        ({"start_of": -5}, "start_of must be -1 or the number"),
        ({"weight": [0.1, 0.2]}, "weight must have 1 or num_images entries"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_the_saved_model(wrong, words, saved_model):
    model = LOADED(saved_model)
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        model.trajectory(**{"seed": [0, 7], "num_images": 3, **wrong})
