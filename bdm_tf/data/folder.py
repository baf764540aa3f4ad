"""A folder of the user's own images."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import gin
import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from bdm_tf.data.images import FileImages, Images, InMemoryImages
from bdm_tf.data.resize import checked_size, decode_file
from bdm_tf.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_EVAL_NAMES = ("test", "val", "validation", "eval")


@gin.register
class ImageFolder:
    """Images below a folder: flat, or `split/label/*` as in `tfds.folder_dataset.ImageFolder`.

    If the folder holds `train/`, that is the training split, and `test/`, `val/`, `validation/`
    or `eval/` the evaluation split; otherwise every image below it is training data.

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
        if channels not in (1, 3):
            raise UserError(f"ImageFolder.channels={channels} must be 1 (grey) or 3 (colour)")
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
        train = os.path.join(data_dir, "train")
        if not tf.io.gfile.isdir(train):
            if self._eval_split:
                raise UserError(f"ImageFolder.eval_split needs {train}, which is not a folder")
            return self._images(data_dir, on_corrupt_image, "all"), None
        names = [self._eval_split] if self._eval_split else _EVAL_NAMES
        folders = [os.path.join(data_dir, name) for name in names]
        found = [folder for folder in folders if tf.io.gfile.isdir(folder)]
        if self._eval_split and not found:
            raise UserError(f"ImageFolder.eval_split: {folders[0]} is not a folder")
        evaluation = None
        if found:
            evaluation = self._images(found[0], on_corrupt_image, os.path.basename(found[0]))
        return self._images(train, on_corrupt_image, "train"), evaluation

    def _images(self, folder: str, on_corrupt_image: str, split: str) -> Images:
        images = self._read(folder, on_corrupt_image)
        images.description = {"data_set": "a folder of images", "split": split}
        return images

    def _read(self, folder: str, on_corrupt_image: str) -> Images:
        paths = sorted(
            os.path.join(root, name)
            for root, _, names in tf.io.gfile.walk(folder)
            for name in names
            if name.lower().endswith(EXTENSIONS)
        )
        if not paths:
            raise UserError(f"{folder} holds no images ({', '.join(EXTENSIONS)})")
        shape = (*self._size, self._channels)
        skip = on_corrupt_image == "skip"
        if len(paths) * float(np.prod(shape)) > self._max_bytes:
            return FileImages(paths, shape, self._decode, skip)
        with ThreadPoolExecutor() as pool:
            results = pool.map(self._decoded_or_error, paths)
            loaded = list(tqdm(results, f"reading {folder}", len(paths), unit="img", delay=2))
        errors = [image for image in loaded if isinstance(image, ValueError)]
        if errors and not skip:
            raise UserError(
                f"{errors[0]} ({len(errors)} such file(s)): remove it, or give "
                "--on_corrupt_image=skip"
            )
        for error in errors:
            logging.warning("skipped: %s", error)
        images = [image for image in loaded if not isinstance(image, ValueError)]
        if not images:
            raise UserError(f"none of the {len(paths)} files in {folder} is a readable image")
        return InMemoryImages(np.stack(images))

    def _decode(self, path: str) -> np.ndarray:
        return decode_file(path, self._size, self._channels)

    def _decoded_or_error(self, path: str):
        try:
            return self._decode(path)
        except ValueError as error:
            return error
