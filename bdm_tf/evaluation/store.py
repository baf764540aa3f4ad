"""Samples and their features, a batch a file, so that an interrupted evaluation goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from bdm_tf.system.cluster import Cluster
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import make_parent, read_npz, remove_folder, write_npz, writing
from bdm_tf.system.locks import locked, this_process


class SampleStore:
    """A folder of finished batches; image i is the same whichever run drew it.

    All workers draw together and have the same batches, but the folder is the chief's alone.

    Args:
        folder: its name must stand for all that the samples and features depend on.
        draw: draws a batch, given the number of its first image.
        extract: uint8 `[n, H, W, C]` to the outputs of the feature network as arrays.
        batch_size: images in a batch.
        cluster: the workers.
    """

    def __init__(
        self,
        folder: str,
        draw: Callable[[int], np.ndarray],
        extract: Callable[[np.ndarray], dict[str, np.ndarray]],
        batch_size: int,
        cluster: Cluster,
    ):
        self._folder, self._draw, self._extract = folder, draw, extract
        self._batch_size, self._cluster = batch_size, cluster
        self._lock: IO[str] | None = None

    def batches(self, num_images: int) -> Iterator[dict[str, np.ndarray]]:
        """Batches with "index", "image", "features" and perhaps "logits", in order.

        The folder is this process's until `clear`, or until it ends.

        Raises:
            UserError: the folder is another process's, or cannot be written to.
        """
        self._cluster.of_chief(self._take)
        silent = not self._cluster.is_chief
        options = dict(desc="samples", unit="img", smoothing=0.1, disable=silent)
        with tqdm(total=num_images, **options) as bar:
            for first in range(0, num_images, self._batch_size):
                batch = self._cluster.of_chief(self._finished, first)
                count = min(self._batch_size, num_images - first)
                if batch is None:
                    batch = self._make(first)
                    bar.update(count)
                elif self._cluster.is_chief:  # says nothing about the time left
                    bar.initial += count
                    bar.n += count
                    bar.last_print_n += count
                    bar.refresh()
                part = {name: array[:count] for name, array in batch.items()}
                yield {"index": np.arange(first, first + count), **part}

    def keep_images(self, path: str, num_images: int) -> None:
        """Writes all images of finished batches: `images`, uint8 `[num_images, H, W, C]`.

        Raises:
            UserError: they cannot be written.
        """
        if self._cluster.is_chief:
            files = [self._file(first) for first in range(0, num_images, self._batch_size)]
            images = np.concatenate([read_npz(file)["image"] for file in files])[:num_images]
            with writing(path):
                write_npz(path, {"images": images}, compressed=True)

    def clear(self) -> None:
        """Removes the folder and lets other processes have it."""
        if not self._cluster.is_chief:
            return
        if tf.io.gfile.exists(self._folder):
            remove_folder(self._folder)
        if self._lock is not None:
            os.remove(self._lock.name)
            self._lock.close()

    def _take(self) -> None:
        folder, name = os.path.split(self._folder)
        path = os.path.join(folder, f".{name}.lock")
        make_parent(path)
        try:
            self._lock = locked(path)
            if self._lock is not None:
                self._lock.truncate(0)
                self._lock.write(json.dumps(this_process()))
                self._lock.flush()
        except BlockingIOError:
            with open(path) as file:
                owner = file.read() or "which is just starting"
            raise UserError(
                f"another evaluation draws the same samples, {owner}: wait for its end, stop it, "
                "or give an --output in another folder"
            ) from None
        except OSError as error:
            raise UserError(f"samples cannot be kept in {self._folder}: {error}") from error

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
        self._cluster.of_chief(self._keep, first, batch)
        return batch

    def _keep(self, first: int, batch: dict[str, np.ndarray]) -> None:
        try:
            tf.io.gfile.makedirs(self._folder)
            write_npz(self._file(first), batch)
        except (OSError, tf.errors.OpError) as error:
            raise UserError(f"samples cannot be kept in {self._folder}: {error}") from error
