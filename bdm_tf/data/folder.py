"""A folder of the user's own images."""

from __future__ import annotations

import os
import stat
from collections import Counter

import gin
import numpy as np
import tensorflow as tf
from absl import logging

from bdm_tf.data.cache import read_images
from bdm_tf.data.images import NAMED, ON_CORRUPT_IMAGE, FileImages, Images, InMemoryImages
from bdm_tf.data.labels import folder_classes
from bdm_tf.data.resize import VERSION, checked_size, decode_file
from bdm_tf.data.splits import EVAL_NAMES, TRAIN_NAMES, check_no_splits, find_split, some_of
from bdm_tf.system.errors import (
    UserError,
    check_between,
    check_choice,
    check_text,
    first_line,
    is_whole,
)
from bdm_tf.system.paths import expanded

# Of the formats that Pillow reads, those that photographs and drawings come in.
EXTENSIONS = tuple(
    ".png .apng .jpg .jpeg .jpe .jfif .bmp .dib .gif .webp .tif .tiff .ppm .pgm .pbm .pnm .avif "
    ".tga .jp2 .ico .qoi".split()
)
_OF_SYSTEMS = "__macosx @eadir thumbs.db desktop.ini $recycle.bin lost+found".split() + [
    "system volume information"
]


@gin.register
class ImageFolder:
    """Images below a folder: flat, or `split/label/*` as in `tfds.folder_dataset.ImageFolder`.

    If the folder holds `train/` or `training/`, that is the training split, and the first of
    `test/`, `testing/`, `val/`, `valid/`, `validation/`, `dev/` and `eval/` the evaluation split,
    in any case; what is beside them is left out. Otherwise every image below it is training data,
    but folders that are called like a training and an evaluation split (`data/train/` and
    `data/test/`, `trainset/` and `val_images/`) are refused, and the latter alone is warned of.

    Hidden files and folders, runs of this library, pipes and devices, and what a link leads back to
    are left out; a line says what was found. Where every image of a split lies in one of several
    folders below it, as in `train/cat/1.png`, these are the classes. Resized images that are held
    in memory are kept in the user's cache folder for the next start.

    Args:
        image_size: `H = W`, or `(H, W)`: images are resized to cover it and centre-cropped.
        channels: 3 for colour, 1 for grey.
        eval_split: a subfolder to evaluate on, in place of those names.
        max_memory_gb: decoded images up to this size are held in memory, more are streamed.
        max_megapixels: larger files, in millions of pixels, are taken for damaged; None is 1,000.
    """

    def __init__(
        self, image_size, channels=3, eval_split=None, max_memory_gb=4.0, max_megapixels=None
    ):
        self._size = checked_size(image_size)
        if self._size is None:
            raise UserError("ImageFolder.image_size must be given: the images may differ in size")
        if not is_whole(channels) or channels not in (1, 3):
            raise UserError(f"ImageFolder.channels={channels!r} must be 1 (grey) or 3 (colour)")
        if eval_split is not None:
            check_text("ImageFolder", eval_split=eval_split)
        check_between("ImageFolder.max_memory_gb", max_memory_gb, 0)
        if max_megapixels is not None:
            check_between("ImageFolder.max_megapixels", max_megapixels, 0, without_low=True)
        self._channels = channels
        self._eval_split = eval_split and os.path.normpath(eval_split)
        self._max_bytes = max_memory_gb * 2**30
        self._max_megapixels = max_megapixels or 1000.0

    def image_shape(self) -> tuple[int, int, int]:
        """The images' `(H, W, C)`."""
        return (*self._size, self._channels)

    def load(
        self, data_dir: str | None, on_corrupt_image: str = "stop"
    ) -> tuple[Images, Images | None]:
        """Returns the training split and, if there is one, the evaluation split.

        Args:
            data_dir: the folder.
            on_corrupt_image: "stop" or "skip".

        Raises:
            UserError: another word than those, no such folder, no images in it, a file that is no
                image, or splits that cannot be told apart.
        """
        check_choice("on_corrupt_image", on_corrupt_image, ON_CORRUPT_IMAGE)
        if not data_dir:
            raise UserError("--data_dir=FOLDER must name the folder of images")
        data_dir = expanded("data_dir", data_dir)
        if not tf.io.gfile.isdir(data_dir):
            raise UserError(f"--data_dir={data_dir} is not a folder")
        folders = subfolders(data_dir)
        train = find_split(data_dir, folders, TRAIN_NAMES)
        if train is None:
            if self._eval_split:
                train = os.path.join(data_dir, "train")
                raise UserError(f"ImageFolder.eval_split needs {train}, which is not a folder")
            return self._images(data_dir, on_corrupt_image, None), None
        used = [os.path.join(data_dir, train)]
        name = self._eval_split or find_split(data_dir, folders, EVAL_NAMES)
        evaluation = None
        if name:
            held_out = os.path.join(data_dir, name)
            if not tf.io.gfile.isdir(held_out):
                raise UserError(f"ImageFolder.eval_split: {held_out} is not a folder")
            if _overlap(used[0], held_out):
                raise UserError(
                    f"{held_out} cannot be the evaluation split (ImageFolder.eval_split): it and "
                    f"{used[0]} hold the same images"
                )
            _check_apart(used[0], held_out)
            used.append(held_out)
            split = os.path.basename(held_out).lower()
            evaluation = self._images(held_out, on_corrupt_image, split)
        if beside := _beside(data_dir, folders, used):
            print(f"{data_dir}: left out beside the splits: {some_of(beside)}", flush=True)
        train_images = self._images(used[0], on_corrupt_image, "train")
        _warn_of_copies(train_images, evaluation, held_out if name else "")
        return train_images, evaluation

    def _images(self, folder: str, on_corrupt_image: str, split: str | None) -> Images:
        """The images below a folder; None for the split is all there are."""
        images = self._read(folder, on_corrupt_image, is_split=split is not None)
        images.description = {"data_set": "a folder of images", "split": split or "all"}
        return images

    def _read(self, folder: str, on_corrupt_image: str, is_split: bool) -> Images:
        paths, left_out = image_files(folder)
        others = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        if not paths:
            it_holds = f"; it holds {others}" if others else ""
            raise UserError(f"{folder} holds no images ({', '.join(EXTENSIONS)}){it_holds}")
        if not is_split:
            check_no_splits(folder, paths)
        beside = f"; left out: {others}" if others else ""
        inside = "" if is_split else _folders_of(folder, paths)
        print(f"{folder}: {len(paths)} images{inside}{beside}", flush=True)
        shape = (*self._size, self._channels)
        skip = on_corrupt_image == "skip"
        if len(paths) * float(np.prod(shape)) > self._max_bytes:
            return FileImages(
                paths,
                shape,
                self._decode,
                skip,
                decoded_as=f"resize {VERSION}",
                class_names=folder_classes(folder, paths)[0],
                labels=lambda: folder_classes(folder, paths)[1],
            )
        array, found, errors = read_images(folder, paths, shape, self._decode)
        if errors and not skip:
            others = f"; {len(errors) - 1} more cannot be read, either" if errors[1:] else ""
            raise UserError(
                f"{errors[0]}{others}: remove what cannot be read, or give --on_corrupt_image=skip"
            )
        for error in errors[:NAMED]:
            logging.warning("skipped: %s", error)
        if len(errors) > NAMED:
            logging.warning("skipped: %d more such files", len(errors) - NAMED)
        if not len(array):
            raise UserError(f"none of the {len(paths)} files in {folder} is a readable image")
        names = folder_classes(folder, found)[0]
        return InMemoryImages(
            array,
            files=paths,
            class_names=names,
            labels=lambda: folder_classes(folder, found)[1],
        )

    def _decode(self, path: str) -> np.ndarray:
        return decode_file(path, self._size, self._channels, self._max_megapixels)


def subfolders(folder: str) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones."""
    names = _listed(folder)
    return [n for n in names if not _hidden(n) and tf.io.gfile.isdir(os.path.join(folder, n))]


def image_files(folder: str) -> tuple[list[str], Counter]:
    """Paths of the images below a folder, sorted, and how many of what else there is.

    Raises:
        UserError: a folder cannot be listed.
    """
    paths: list[str] = []
    left_out: Counter = Counter()
    seen: set[str] = set()

    to_visit = [folder]
    while to_visit:
        where = to_visit.pop()
        real = where if "://" in where else os.path.realpath(where)
        names = _listed(where)
        if real in seen:
            left_out["linked folder(s)"] += 1
            continue
        seen.add(real)
        if {"config.gin", "checkpoints"} <= set(names):
            left_out["run(s) of this library"] += 1
            continue
        below = []
        for name in names:
            path = os.path.join(where, name)
            if _hidden(name):
                left_out["hidden"] += 1
            elif tf.io.gfile.isdir(path):
                below.append(path)
            elif name.lower().endswith(EXTENSIONS):
                if _is_special(path):
                    left_out["pipe(s), socket(s) or device(s)"] += 1
                else:
                    paths.append(path)
            else:
                left_out[os.path.splitext(name)[1].lower() or "without an extension"] += 1
        to_visit += reversed(below)
    return sorted(paths), left_out


def _beside(data_dir: str, folders: list[str], used: list[str]) -> list[str]:
    """Folders and images directly in `data_dir` that are in none of the folders that are used."""
    others = [f for f in folders if not any(_overlap(os.path.join(data_dir, f), u) for u in used)]
    files = [f for f in _listed(data_dir) if f.lower().endswith(EXTENSIONS) and not _hidden(f)]
    return [*(f"{folder}/" for folder in others), *files]


def _folders_of(folder: str, paths: list[str]) -> str:
    """The folders directly below one that images are in, in words: they may be meant as splits."""
    below = sorted({path[len(folder) :].strip("/").split("/")[0] for path in paths} - {""})
    below = [name for name in below if tf.io.gfile.isdir(os.path.join(folder, name))]
    return f", all trained on, of {len(below)} folders: {some_of(below)}" if below else ""


def _warn_of_copies(train: Images, held_out: Images | None, folder: str) -> None:
    """Warns of evaluation images that are trained on, where both are in memory."""
    if not isinstance(train, InMemoryImages) or not isinstance(held_out, InMemoryImages):
        return
    both = held_out.num_in(train)
    if both:
        logging.warning(
            "%d of the %d images of %s are, pixel for pixel, training images too",
            both,
            held_out.num_images,
            folder,
        )


def _check_apart(train: str, held_out: str) -> None:
    """Raises a `UserError` if files of one split are, by links, files of the other."""
    if "://" in train:
        return
    trained_on = {_same_file(path) for path in image_files(train)[0]} - {None}
    both = [path for path in image_files(held_out)[0] if _same_file(path) in trained_on]
    if both:
        raise UserError(
            f"{len(both)} images of {held_out} are links to images of {train}, {both[0]} for one: "
            "remove them from one of the two"
        )


def _same_file(path: str) -> tuple[int, int] | None:
    """What all links to a file share."""
    try:
        found = os.stat(path)
    except OSError:  # a link to nowhere, which is told when it is read
        return None
    return found.st_dev, found.st_ino


def _overlap(one: str, other: str) -> bool:
    """Whether a folder is another, or in it."""
    one, other = (f"{f if '://' in f else os.path.realpath(f)}/" for f in (one, other))
    return one.startswith(other) or other.startswith(one)


def _is_special(path: str) -> bool:
    """Whether a path is no file but what reading might wait for; a link to nowhere is none."""
    if "://" in path:
        return False
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def _listed(folder: str) -> list[str]:
    try:
        return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{folder} holds a name that is not UTF-8, which TensorFlow cannot read: rename it "
            f"({error.object!r})"
        ) from error
    except (tf.errors.OpError, OSError) as error:
        raise UserError(f"{folder} cannot be listed: {first_line(error)}") from error
