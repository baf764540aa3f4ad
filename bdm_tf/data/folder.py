"""A folder of the user's own images."""

from __future__ import annotations

import os
from collections import Counter

import gin
import numpy as np
import tensorflow as tf
from absl import logging

from bdm_tf.data.cache import read_images
from bdm_tf.data.images import FileImages, Images, InMemoryImages
from bdm_tf.data.resize import VERSION, checked_size, decode_file
from bdm_tf.errors import UserError, check_between, check_text, first_line, is_whole

# Of the formats that Pillow reads, those that photographs and drawings come in.
EXTENSIONS = tuple(
    ".png .apng .jpg .jpeg .jpe .jfif .bmp .dib .gif .webp .tif .tiff .ppm .pgm .pbm .pnm .avif "
    ".tga .jp2 .ico .qoi".split()
)
_TRAIN_NAMES = ("train", "training")
_EVAL_NAMES = ("test", "testing", "val", "valid", "validation", "dev", "eval")
_OF_SYSTEMS = ("__macosx", "@eadir", "thumbs.db", "desktop.ini")


@gin.register
class ImageFolder:
    """Images below a folder: flat, or `split/label/*` as in `tfds.folder_dataset.ImageFolder`.

    If the folder holds `train/` or `training/`, that is the training split, and the first of
    `test/`, `testing/`, `val/`, `valid/`, `validation/`, `dev/` and `eval/` the evaluation split,
    in any case; otherwise every image below it is training data. Hidden files and folders, runs of
    this library and what a link leads back to are left out; a line says what was found. Resized
    images that are held in memory are kept in the user's cache folder for the next start.

    Args:
        image_size: `H = W`, or `(H, W)`: images are resized to cover it and centre-cropped.
        channels: 3 for colour, 1 for grey.
        eval_split: a subfolder to evaluate on, in place of those names.
        max_memory_gb: decoded images up to this size are held in memory, more are streamed.
    """

    def __init__(self, image_size, channels=3, eval_split=None, max_memory_gb=4.0):
        self._size = checked_size(image_size)
        if self._size is None:
            raise UserError("ImageFolder.image_size must be given: the images may differ in size")
        if not is_whole(channels) or channels not in (1, 3):
            raise UserError(f"ImageFolder.channels={channels} must be 1 (grey) or 3 (colour)")
        if eval_split is not None:
            check_text("ImageFolder", eval_split=eval_split)
        check_between("ImageFolder.max_memory_gb", max_memory_gb, 0)
        self._channels = channels
        self._eval_split = eval_split
        self._max_bytes = max_memory_gb * 2**30

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
            UserError: no such folder, no images in it, or a file that is no image.
        """
        if not data_dir:
            raise UserError("--data_dir=FOLDER must name the folder of images")
        data_dir = os.path.expanduser(data_dir)
        if not tf.io.gfile.isdir(data_dir):
            raise UserError(f"--data_dir={data_dir} is not a folder")
        folders = {name.lower(): name for name in reversed(subfolders(data_dir))}
        train = next((folders[name] for name in _TRAIN_NAMES if name in folders), None)
        if train is None:
            if self._eval_split:
                train = os.path.join(data_dir, "train")
                raise UserError(f"ImageFolder.eval_split needs {train}, which is not a folder")
            return self._images(data_dir, on_corrupt_image, "all"), None
        if self._eval_split:
            held_out: str | None = os.path.join(data_dir, self._eval_split)
            if not tf.io.gfile.isdir(held_out):
                raise UserError(f"ImageFolder.eval_split: {held_out} is not a folder")
        else:
            name = next((folders[name] for name in _EVAL_NAMES if name in folders), None)
            held_out = name and os.path.join(data_dir, name)
        evaluation = None
        if held_out:
            split = os.path.basename(held_out).lower()
            evaluation = self._images(held_out, on_corrupt_image, split)
        return self._images(os.path.join(data_dir, train), on_corrupt_image, "train"), evaluation

    def _images(self, folder: str, on_corrupt_image: str, split: str) -> Images:
        images = self._read(folder, on_corrupt_image)
        images.description = {"data_set": "a folder of images", "split": split}
        return images

    def _read(self, folder: str, on_corrupt_image: str) -> Images:
        paths, left_out = image_files(folder)
        beside = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        if not paths:
            found = f"; it holds {beside}" if beside else ""
            raise UserError(f"{folder} holds no images ({', '.join(EXTENSIONS)}){found}")
        found = f"; left out: {beside}" if beside else ""
        print(f"{folder}: {len(paths)} images{found}", flush=True)
        shape = (*self._size, self._channels)
        skip = on_corrupt_image == "skip"
        if len(paths) * float(np.prod(shape)) > self._max_bytes:
            return FileImages(paths, shape, self._decode, skip, decoded_as=f"resize {VERSION}")
        array, errors = read_images(folder, paths, shape, self._decode)
        if errors and not skip:
            raise UserError(
                f"{errors[0]} ({len(errors)} such file(s)): remove it, or give "
                "--on_corrupt_image=skip"
            )
        for error in errors:
            logging.warning("skipped: %s", error)
        if not len(array):
            raise UserError(f"none of the {len(paths)} files in {folder} is a readable image")
        return InMemoryImages(array, files=paths)

    def _decode(self, path: str) -> np.ndarray:
        return decode_file(path, self._size, self._channels)


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

    def look(where: str) -> None:
        real = where if "://" in where else os.path.realpath(where)
        names = _listed(where)
        if real in seen:
            left_out["linked folder(s)"] += 1
            return
        seen.add(real)
        if {"config.gin", "checkpoints"} <= set(names):
            left_out["run(s) of this library"] += 1
            return
        for name in names:
            path = os.path.join(where, name)
            if _hidden(name):
                left_out["hidden"] += 1
            elif tf.io.gfile.isdir(path):
                look(path)
            elif name.lower().endswith(EXTENSIONS):
                paths.append(path)
            else:
                left_out[os.path.splitext(name)[1].lower() or "without an extension"] += 1

    look(folder)
    return sorted(paths), left_out


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
