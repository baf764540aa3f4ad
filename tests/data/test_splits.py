"""Which folders are trained on and evaluated on, and what is said of the others."""

import os

import pytest

from bdm_tf.system.errors import UserError
from tests.data.folders import both, fill, in_memory, values


@both
def test_train_and_a_folder_beside_it_are_the_splits(tmp_path, source, capsys):
    fill(tmp_path, [50])
    fill(tmp_path / "train" / "cat", [10])
    fill(tmp_path / "train" / "dog", [20])
    for name in ("extra", "test", "val"):
        fill(tmp_path / name / "cat", [30 + len(name)])
    images, evaluation = source().load(str(tmp_path))
    assert values(images) == [10, 20]
    assert values(evaluation) == [34]
    said = capsys.readouterr().out
    assert f"{tmp_path}: left out beside the splits: extra/, val/, 00.png\n" in said


@pytest.mark.parametrize(
    "train, held_out",
    [("train", "validation"), ("train", "dev"), ("Train", "Test"), ("training", "testing")],
)
def test_splits_have_the_names_that_people_give_them(tmp_path, train, held_out, capsys):
    fill(tmp_path / train, [10, 20])
    fill(tmp_path / held_out, [30])
    images, evaluation = in_memory().load(str(tmp_path))
    assert (values(images), values(evaluation)) == ([10, 20], [30])
    assert evaluation.description["split"] == held_out.lower()
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize("names", [("TRAIN", "Train", "train"), ("train", "Test", "test")])
def test_a_split_under_several_spellings_is_refused(tmp_path, names):
    for name in names:
        fill(tmp_path / name, [10])
    with pytest.raises(UserError, match=f"{' and '.join(names[-2:])}: one only may be called"):
        in_memory().load(str(tmp_path))


@pytest.mark.parametrize("given", ["held_out", "./held_out/", "../{}/held_out"])
def test_another_folder_can_be_the_evaluation_split(tmp_path, given, capsys):
    for name, value in (("train", 10), ("test", 20), ("held_out", 30)):
        fill(tmp_path / name, [value])
    _, evaluation = in_memory(eval_split=given.format(tmp_path.name)).load(str(tmp_path))
    assert values(evaluation) == [30] and evaluation.description["split"] == "held_out"
    assert "left out beside the splits: test/\n" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["train", "held_out"])
def test_an_evaluation_split_that_is_not_there_is_refused(tmp_path, folder):
    fill(tmp_path / folder, [10])
    with pytest.raises(UserError, match="eval_split.*is not a folder"):
        in_memory(eval_split="held_out").load(str(tmp_path))


@pytest.mark.parametrize("given", ["train", "train/cat", ".", "link"])
def test_training_images_are_no_evaluation_split(tmp_path, given):
    fill(tmp_path / "train" / "cat", [10])
    (tmp_path / "link").symlink_to(tmp_path / "train")
    with pytest.raises(UserError, match="eval_split.*hold the same images"):
        in_memory(eval_split=given).load(str(tmp_path))


@pytest.mark.parametrize(
    "train, held_out, way_out",
    [
        ("data/train", "data/test", "give --data_dir={}/data,"),
        ("data/Training", "validation", "give --data_dir={}/data,"),
        ("trainset", "testset", "move them to {0}/train and {0}/test,"),
        (" train", "val", "move them to {0}/train and {0}/test,"),
        ("train_images", "hold-out", "move them to {0}/train and {0}/test,"),
        ("cat/train", "cat/test", "give --data_dir={}/cat,"),
        ("coco_train2017", "val2017", "move them to {0}/train and {0}/test,"),
    ],
)
def test_splits_that_would_all_be_trained_on_are_refused(tmp_path, train, held_out, way_out):
    fill(tmp_path / train / "a", [10])
    fill(tmp_path / held_out / "a", [20])
    with pytest.raises(UserError, match="look like splits, and both would be trained on") as error:
        in_memory().load(f"{tmp_path}/")
    for words in (f"{tmp_path}/{train}'", f"{tmp_path}/{held_out}'", way_out.format(tmp_path)):
        assert words in str(error.value)


def test_a_class_may_be_called_like_a_split(tmp_path, caplog):
    for i, name in enumerate(["contest", "restrained", "test", "values"]):
        fill(tmp_path / name, [i])
    images, evaluation = in_memory().load(str(tmp_path))
    assert values(images) == [0, 1, 2, 3] and evaluation is None
    (warned,) = [record.getMessage() for record in caplog.records]
    assert f"like an evaluation split: {tmp_path}/test; " in warned
    assert f"move the other images to {tmp_path}/train" in warned


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_image_that_both_splits_link_to_is_refused(tmp_path, link):
    fill(tmp_path / "train", [10, 20, 30])
    fill(tmp_path / "test", [40])
    link(tmp_path / "train" / "01.png", tmp_path / "test" / "same.png")
    with pytest.raises(UserError, match="1 images of .*test are links to images of .*same.png"):
        in_memory().load(str(tmp_path))
    (tmp_path / "test" / "same.png").unlink()
    assert in_memory().load(str(tmp_path))[1].num_images == 1


@pytest.mark.parametrize("names", [("trainA", "testA"), ("Trainingsdaten", "Testdaten")])
def test_splits_of_other_layouts_are_told(tmp_path, names):
    for name in names:
        fill(tmp_path / name, [10])
    with pytest.raises(UserError, match="look like splits"):
        in_memory().load(str(tmp_path))
