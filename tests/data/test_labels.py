"""The labels of images, wherever they come from, stay with their images."""

import os

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from bdm_tf.data import ImageFolder, TFDSImages, training_dataset
from bdm_tf.data.labels import count_classes, images_of_class, labels_among
from bdm_tf.system.errors import UserError


def of_rows(images, expected):
    """Whether 6 batches have, with each image, its label; `expected` maps images to labels."""
    given = dict(batch_size=8, seed=3, first_step=2, flip=False, with_labels=True)
    for batch in training_dataset(images, **given).take(6):
        levels = np.round((batch["image"].numpy() + 1) * 127.5).astype(np.uint8)
        for image, label in zip(levels, batch["label"].numpy()):
            assert expected[image.tobytes()] == label


@pytest.mark.parametrize("max_memory_gb", [4.0, 0.0])
def test_tfds_labels_stay_with_their_images(max_memory_gb, digits_dir):
    train, test = TFDSImages("digits", max_memory_gb=max_memory_gb).load(digits_dir)
    pictures, labels = load_digits(return_X_y=True)
    pictures = np.round(pictures * (255 / 16)).astype(np.uint8)
    expected = {p.tobytes(): label for p, label in zip(pictures, labels)}
    assert train.class_names == tuple("0123456789")
    of_rows(train, expected)
    for split in (train, test):
        found = split.labels()
        for start, batch in zip(range(0, len(found), 100), split.in_order(100)):
            for image, label in zip(batch, found[start : start + 100]):
                assert expected[image.tobytes()] == label
    assert sum(count_classes(train)) == train.num_images


def folder(path, classes, per_class=3, size=4):
    """Images of one grey level each; returns level to class."""
    levels = {}
    for number, name in enumerate(classes):
        os.makedirs(path / name)
        for i in range(per_class):
            level = 10 * number + i
            levels[bytes([level] * size * size)] = number
            Image.new("L", (size, size), level).save(path / name / f"{i}.png")
    return levels


@pytest.mark.parametrize("max_memory_gb", [4.0, 0.0])
def test_folders_are_classes_also_where_an_image_is_passed_over(max_memory_gb, tmp_path):
    expected = folder(tmp_path, ["ant", "bee", "cat"])
    (tmp_path / "bee" / "1.png").write_bytes(b"no image")
    source = ImageFolder(4, channels=1, max_memory_gb=max_memory_gb)
    images, _ = source.load(str(tmp_path), on_corrupt_image="skip")
    assert images.class_names == ("ant", "bee", "cat")
    of_rows(images, expected)


def test_an_evaluation_split_is_counted_by_the_training_splits_names(tmp_path):
    folder(tmp_path / "train", ["ant", "bee", "cat"])
    folder(tmp_path / "test", ["bee", "cat"], per_class=2)
    train, test = ImageFolder(4, channels=1).load(str(tmp_path))
    assert labels_among(test, train.class_names).tolist() == [1, 1, 2, 2]
    assert images_of_class(test, train.class_names, 2).num_images == 2
    with pytest.raises(UserError, match="test: there is no image of 'ant'"):
        images_of_class(test, train.class_names, 0)
    with pytest.raises(UserError, match="no class cat in the training split, which has ant, bee"):
        labels_among(test, ["ant", "bee"])


def test_a_folder_without_classes_says_so(tmp_path):
    folder(tmp_path / "one", ["ant"])
    folder(tmp_path / "mixed", ["ant", "bee"])
    Image.new("L", (4, 4)).save(tmp_path / "mixed" / "loose.png")
    for name in ("one", "mixed"):
        images, _ = ImageFolder(4, channels=1).load(str(tmp_path / name))
        with pytest.raises(UserError, match="no labels.*none beside these, .*two of these"):
            count_classes(images)
