"""The classes of images: those of folders, and one split's in another's terms."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from bdm_tf.data.images import Images, InMemoryImages
from bdm_tf.data.splits import some_of
from bdm_tf.system.errors import UserError

_BATCH = 500


def folder_classes(folder: str, paths: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Takes the folders directly below one for classes.

    Args:
        folder: what the images are below.
        paths: the images.

    Returns:
        The classes' names, sorted, and the class of each image, int32 `[n]`. No names if some image
        lies in no such folder.
    """
    within = [os.path.dirname(path[len(folder) :].lstrip("/")).split("/")[0] for path in paths]
    names = sorted(set(within))
    if "" in names:
        return (), np.zeros(len(paths), np.int32)
    places = {name: i for i, name in enumerate(names)}
    return tuple(names), np.array([places[name] for name in within], np.int32)


def labels_among(images: Images, class_names: Sequence[str]) -> np.ndarray:
    """The classes of the images of a split, by their places among other names.

    Args:
        images: the split.
        class_names: those of the split that was trained on.

    Returns:
        int32 `[n]`.

    Raises:
        UserError: the split has no classes, or one that is not among these.
    """
    if len(class_names) < 2 or not images.class_names:
        raise UserError(f"{_described(images)}: there are no labels. {_WAY_OUT}")
    if unknown := sorted(set(images.class_names) - set(class_names)):
        raise UserError(
            f"{_described(images)}: there is no class {some_of(unknown)} in the training split, "
            f"which has {some_of(class_names)}"
        )
    places = {name: i for i, name in enumerate(class_names)}
    table = np.array([places[name] for name in images.class_names], np.int32)
    return table[images.labels()]


def images_of_class(images: Images, class_names: Sequence[str], number: int) -> InMemoryImages:
    """The images of a split that are of one class, read into memory.

    Args:
        images: the split.
        class_names: those of the split that was trained on.
        number: the class, by its place among them.

    Raises:
        UserError: see `labels_among`; or there is no such image.
    """
    is_of = labels_among(images, class_names) == number
    chosen, start = [], 0
    for batch in images.in_order(_BATCH):
        chosen.append(batch[is_of[start : start + len(batch)]])
        start += len(batch)
    found = np.concatenate(chosen)
    if not len(found):
        raise UserError(f"{_described(images)}: there is no image of {class_names[number]!r}")
    return InMemoryImages(
        found,
        {**images.description, "class": class_names[number]},
        class_names=class_names,
        labels=lambda: np.full(len(found), number, np.int32),
    )


def count_classes(images: Images) -> list[int]:
    """How many images there are of each class of a split.

    Raises:
        UserError: it has no classes.
    """
    labels = labels_among(images, images.class_names)
    return np.bincount(labels, minlength=len(images.class_names)).tolist()


_WAY_OUT = (
    "Of a TFDS data set they are the feature TFDSImages.label_key; in a folder, each image must "
    "lie in a sub-folder that its class is called after, none beside these, and there must be two "
    "of these at least. Without: train.label_dropout = None"
)


def _described(images: Images) -> str:
    found = images.description
    return ", ".join(found[key] for key in ("data_set", "split") if key in found) or "the images"
