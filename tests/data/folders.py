"""Folders of small images of one colour."""

import pytest
from PIL import Image

from bdm_tf.data import ImageFolder


def save(path, value, suffix="png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value,) * 3).save(path, suffix)
    return path


def fill(folder, values, damaged=()):
    """Files `00.png`, `01.png`, ... of one colour each; those in `damaged` are cut short."""
    for i, value in enumerate(values):
        path = save(folder / f"{i:02d}.png", value)
        if i in damaged:
            path.write_bytes(path.read_bytes()[:-30])
    return str(folder)


def values(images, count=1000):
    return images.eval_images(count)[:, 0, 0, 0].tolist()


def in_memory(**arguments):
    return ImageFolder(4, **arguments)


def streamed(**arguments):
    return ImageFolder(4, max_memory_gb=0, **arguments)


both = pytest.mark.parametrize("source", [in_memory, streamed])
