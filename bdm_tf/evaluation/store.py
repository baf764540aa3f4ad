"""Samples and their features, a batch a file, so that an interrupted evaluation goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from bdm_tf.errors import UserError
from bdm_tf.files import read_npz, remove_folder, write_npz


class SampleStore:
    """A folder of finished batches; image i is the same whichever run drew it.

    Args:
        folder: its name must stand for all that the samples and features depend on.
        draw: draws a batch, given the number of its first image.
        extract: uint8 `[n, H, W, C]` to the outputs of the feature network as arrays.
        batch_size: images in a batch.
    """

    def __init__(
        self,
        folder: str,
        draw: Callable[[int], np.ndarray],
        extract: Callable[[np.ndarray], dict[str, np.ndarray]],
        batch_size: int,
    ):
        self._folder, self._draw, self._extract = folder, draw, extract
        self._batch_size = batch_size

    def batches(self, num_images: int) -> Iterator[dict[str, np.ndarray]]:
        """Batches with "index", "image", "features" and perhaps "logits", in order.

        Raises:
            UserError: the folder cannot be written to.
        """
        with tqdm(total=num_images, desc="samples", unit="img", smoothing=0.1) as bar:
            resumed = 0
            for first in range(0, num_images, self._batch_size):
                batch = self._finished(first)
                count = min(self._batch_size, num_images - first)
                if batch is None:
                    batch = self._make(first)
                    bar.update(count)
                else:  # says nothing about the time left
                    resumed += count
                    bar.initial = bar.n = bar.last_print_n = resumed
                    bar.refresh()
                part = {name: array[:count] for name, array in batch.items()}
                yield {"index": np.arange(first, first + count), **part}

    def images(self, num_images: int) -> np.ndarray:
        """All images of finished batches, uint8 `[num_images, H, W, C]`."""
        files = [self._file(first) for first in range(0, num_images, self._batch_size)]
        return np.concatenate([read_npz(file)["image"] for file in files])[:num_images]

    def clear(self) -> None:
        """Removes the folder."""
        if tf.io.gfile.exists(self._folder):
            remove_folder(self._folder)

    def _file(self, first: int) -> str:
        return os.path.join(self._folder, f"batch_{first:08d}.npz")

    def _finished(self, first: int) -> dict[str, np.ndarray] | None:
        if not tf.io.gfile.exists(self._file(first)):
            return None
        try:
            return read_npz(self._file(first))
        except (ValueError, OSError, tf.errors.OpError):  # damaged: it is drawn again
            return None

    def _make(self, first: int) -> dict[str, np.ndarray]:
        images = self._draw(first)
        batch = {"image": images, **self._extract(images)}
        try:
            tf.io.gfile.makedirs(self._folder)
            write_npz(self._file(first), batch)
        except (OSError, tf.errors.OpError) as error:
            raise UserError(f"samples cannot be kept in {self._folder}: {error}") from error
        return batch
