"""What is in a data set, in order, and the key that stands for it."""

import numpy as np
import pytest
from PIL import Image

from bdm_tf.data import ImageFolder, InMemoryImages, TFDSImages


def digits(digits_dir, **settings):
    return TFDSImages("digits", **settings).load(digits_dir)


@pytest.mark.parametrize("memory", [4.0, 0.0])
def test_images_come_in_order_in_batches_of_any_size(memory, digits_dir):
    train, _ = digits(digits_dir, max_memory_gb=memory)
    whole = train.eval_images(10**6)
    for size in (1000, 77):
        batches = list(train.in_order(size))
        assert {len(b) for b in batches[:-1]} <= {size}
        np.testing.assert_array_equal(np.concatenate(batches), whole)
    assert train.description == {"data_set": "digits", "version": "1.0.0", "split": "train"}


@pytest.mark.parametrize("memory", [4.0, 0.0])
def test_a_key_stands_for_the_images(memory, digits_dir):
    def key(**settings):
        return digits(digits_dir, max_memory_gb=memory, **settings)[0].content_key()

    keys = [
        key(),
        key(train_split="test", eval_split=None),
        key(train_split="train[:100]"),
        key(train_split="train+test", eval_split=None),
        key(image_size=(8, 4)),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


@pytest.mark.parametrize("memory", [4.0, 0.0])
def test_the_key_of_a_folder_follows_its_files(memory, tmp_path):
    def key():
        folder = ImageFolder(4, channels=1, max_memory_gb=memory)
        return folder.load(str(tmp_path))[0].content_key()

    for i in range(3):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    first = key()
    assert key() == first
    Image.new("L", (4, 4), 9).save(tmp_path / "1.png")
    assert key() != first


def test_the_shape_is_part_of_the_key():
    array = np.zeros((4, 2, 3, 1), np.uint8)
    assert (
        InMemoryImages(array).content_key()
        != InMemoryImages(array.reshape(4, 3, 2, 1)).content_key()
    )
