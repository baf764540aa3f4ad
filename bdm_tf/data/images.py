"""A split of a data set: uint8 images of one shape, in an order given by (seed, step)."""

from __future__ import annotations

import abc
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import tensorflow as tf
from absl import logging

from bdm_tf.system.errors import UserError

ON_CORRUPT_IMAGE = ("stop", "skip")
NAMED = 5  # of many files that cannot be read


class Images(abc.ABC):
    """A split of `num_images` images of shape `image_shape` = `(H, W, C)`."""

    image_shape: tuple[int, int, int]
    num_images: int
    description: dict[str, str] = {}  # "data_set", "version" and "split", for results
    class_names: tuple[str, ...] = ()  # empty where there are no labels

    @abc.abstractmethod
    def train_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        first_step: int,
        rows: tuple[int, int] | None = None,
        with_labels: bool = False,
    ) -> tf.data.Dataset:
        """Endless training batches, beginning with global batch number `first_step`.

        Every epoch is a new permutation of all images; a batch may straddle two epochs. What
        global batch k holds depends on (seed, k) alone, so a resumed run sees what it would have.

        Args:
            batch_size: images in a global batch, over all workers.
            seed: an integer.
            first_step: the number of the first batch.
            rows: `(low, high)`, the rows of each global batch to return; default all.
            with_labels: also return labels, which there must be.

        Returns:
            Elements uint8 `[high - low, H, W, C]`; with labels a pair of that and the images'
            classes, int32 `[high - low]`.
        """

    @abc.abstractmethod
    def labels(self, num_images: int | None = None) -> np.ndarray:
        """The classes int32 `[n]` of the first `num_images` images (all, if None), in fixed order.

        There must be `class_names`, which the numbers count.
        """

    @abc.abstractmethod
    def at(self, places: np.ndarray) -> np.ndarray:
        """The images with these numbers, which ascend, in fixed order, uint8 `[n, H, W, C]`."""

    def eval_images(self, num_images: int) -> np.ndarray:
        """The first `num_images` images (all, if there are fewer) in fixed order, uint8."""
        return self.at(np.arange(min(num_images, self.num_images)))

    @abc.abstractmethod
    def in_order(self, batch_size: int) -> Iterator[np.ndarray]:
        """Every image once, uint8 `[n, H, W, C]`, in fixed order; the last batch may be small."""

    @abc.abstractmethod
    def content_key(self) -> str:
        """A SHA-256 that no other images, order or shape share, whatever they are called."""

    @abc.abstractmethod
    def source_key(self) -> str:
        """A SHA-256 that changes when images are added, removed or replaced; soon computed.

        Of files it looks at names and sizes, so that another version of a decoder changes nothing.
        """

    def failure_by(self, error: Exception) -> UserError | None:
        """Why a training batch could not be read, if TensorFlow raised `error` because of that."""
        del error
        return None


class _IndexedImages(Images):
    """Images that can be read in any order, so that resuming is index arithmetic."""

    _labels: Callable[[], np.ndarray] | None = None

    @abc.abstractmethod
    def _read(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The images with these int64 `[n]` indices, uint8 `[n, H, W, C]`, and their indices.

        These are others where an image that cannot be read was replaced.
        """

    def train_batches(self, *, batch_size, seed, first_step, rows=None, with_labels=False):
        low, high = rows or (0, batch_size)
        places = tf.range(low, high, dtype=tf.int64)
        with tf.device("CPU:0"):
            labels = tf.constant(self.labels()) if with_labels else None

        def batch(step):
            indices = permuted(step * batch_size + places, self.num_images, seed)
            images, indices = self._read(indices)
            images = tf.ensure_shape(images, [high - low, *self.image_shape])
            return images if labels is None else (images, tf.gather(labels, indices))

        steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
        return steps.map(batch, num_parallel_calls=2, deterministic=True)

    def at(self, places):
        return self._read(tf.constant(places, tf.int64))[0].numpy()

    def labels(self, num_images=None):
        assert self._labels is not None, "there are no class_names"
        return np.asarray(self._labels(), np.int32)[:num_images]


def permuted(positions: tf.Tensor, num_images: int, seed: int) -> tf.Tensor:
    """The image at each position of an endless sequence of random permutations.

    `RandomIndexShuffle` computes one entry of a permutation at a time, so nothing is stored or
    replayed.
    """
    epochs, places = positions // num_images, positions % num_images
    count = tf.shape(positions)[0]
    seeds = tf.stack(
        [
            tf.fill([count], seed),
            tf.cast(epochs, tf.int32),
            tf.zeros([count], tf.int32),
        ],
        axis=1,
    )
    last = tf.constant(num_images - 1, tf.int64)
    # With TensorFlow's usual 4 rounds, seeds that are small numbers give nearly equal permutations.
    return tf.raw_ops.RandomIndexShuffle(index=places, seed=seeds, max_index=last, rounds=16)


class InMemoryImages(_IndexedImages):
    """Decoded images held in memory.

    Args:
        array: uint8 `[N, H, W, C]`, N at least 1.
        description: see `Images`.
        files: those that the images were read from; whatever decodes them, they are the same.
        class_names: of the images' classes.
        labels: finds the images' classes, int32 `[N]`.
    """

    def __init__(
        self,
        array: np.ndarray,
        description: dict[str, str] | None = None,
        files: Sequence[str] = (),
        class_names: Sequence[str] = (),
        labels: Callable[[], np.ndarray] | None = None,
    ):
        array = np.asarray(array)
        if array.dtype != np.uint8 or array.ndim != 4 or not array.size:
            raise UserError(
                f"images are {array.dtype} {array.shape}, must be uint8 [N, H, W, C], N at least 1"
            )
        self.description, self._files = description or {}, files
        self.class_names, self._labels = tuple(class_names), labels
        self.num_images, *shape = array.shape
        self.image_shape = tuple(shape)
        with tf.device("CPU:0"):
            self._array = tf.constant(array, tf.uint8)

    def in_order(self, batch_size):
        for start in range(0, self.num_images, batch_size):
            yield self._array[start : start + batch_size].numpy()

    def content_key(self):
        return content_sha256(self.image_shape, (batch.tobytes() for batch in self.in_order(1000)))

    def source_key(self):
        return listing_sha256(self._files) if self._files else self.content_key()

    def num_in(self, other: InMemoryImages) -> int:
        """How many of the images are among others of the same shape."""
        there = set(other._digests())
        return sum(digest in there for digest in self._digests())

    def _digests(self) -> Iterator[bytes]:
        for batch in self.in_order(1000):
            yield from (hashlib.sha256(image.tobytes()).digest() for image in batch)

    def _read(self, indices):
        return tf.gather(self._array, indices), indices


class FileImages(_IndexedImages):
    """Image files that are read and decoded when their turn comes.

    Args:
        paths: the files, in fixed order.
        image_shape: `(H, W, C)`.
        read: `read(path) -> uint8 [H, W, C]`; raises for a file that is no image.
        skip_corrupt: replace a file that cannot be read by the next that can; a few are named.
        decoded_as: what `read` makes of a file, in words, for `content_key`.
        class_names, labels: see `InMemoryImages`.
    """

    def __init__(
        self,
        paths: list[str],
        image_shape: tuple[int, int, int],
        read: Callable[[str], np.ndarray],
        skip_corrupt: bool,
        decoded_as: str = "",
        class_names: Sequence[str] = (),
        labels: Callable[[], np.ndarray] | None = None,
    ):
        self.num_images = len(paths)
        self.class_names, self._labels = tuple(class_names), labels
        self.image_shape = image_shape
        self._paths, self._read_file, self._skip = paths, read, skip_corrupt
        self._skipped: set[str] = set()
        self._decoded_as = decoded_as
        self._failure: UserError | None = None

    def failure_by(self, error):
        return self._failure

    def at(self, places):
        return np.stack([self._read_one(i)[0] for i in places])

    def in_order(self, batch_size):
        for start in range(0, self.num_images, batch_size):
            stop = min(start + batch_size, self.num_images)
            yield np.stack([self._read_one(i)[0] for i in range(start, stop)])

    def content_key(self):
        kind = [self._decoded_as.encode()]
        return content_sha256(self.image_shape, chain(kind, map(_content, self._paths)))

    def source_key(self):
        return listing_sha256(self._paths)

    def _read(self, indices):
        return tf.map_fn(
            lambda i: tuple(tf.numpy_function(self._read_one, [i], (tf.uint8, tf.int64))),
            indices,
            fn_output_signature=(
                tf.TensorSpec(self.image_shape, tf.uint8),
                tf.TensorSpec([], tf.int64),
            ),
            parallel_iterations=16,
        )

    def _read_one(self, index: int) -> tuple[np.ndarray, np.int64]:
        for offset in range(self.num_images):
            place = (int(index) + offset) % self.num_images
            path = self._paths[place]
            try:
                return self._read_file(path), np.int64(place)
            except ValueError as error:
                if not self._skip:
                    self._failure = UserError(
                        f"{error}: remove it, or give --on_corrupt_image=skip"
                    )
                    raise self._failure from error
                if path not in self._skipped:
                    self._skipped.add(path)
                    count = len(self._skipped)
                    if count <= NAMED:
                        logging.warning("skipped: %s", error)
                    elif count == NAMED + 1 or count % 100 == 0:
                        logging.warning("skipped: %d such files so far, not all named", count)
        self._failure = UserError(f"none of the {self.num_images} files is a readable image")
        raise self._failure


def content_sha256(image_shape: tuple[int, int, int], contents: Iterable[bytes]) -> str:
    """A SHA-256 of images of a shape, each of which has its content."""
    found = hashlib.sha256(repr(tuple(image_shape)).encode())
    for content in contents:
        found.update(hashlib.sha256(content).digest())  # so that boundaries count
    return found.hexdigest()


def listing_sha256(paths: Sequence[str]) -> str:
    """A SHA-256 of files' names, from where they begin to differ, and sizes.

    Of remote ones the names alone: each size would be a request.
    """
    start = len(os.path.commonprefix([*map(os.path.dirname, paths)]))
    found = hashlib.sha256()
    for path in paths:
        try:
            size = "" if "://" in path else tf.io.gfile.stat(path).length
        except tf.errors.OpError:  # it cannot be read, and is skipped or named elsewhere
            size = ""
        found.update(f"{path[start:]}\0{size}\0".encode())
    return found.hexdigest()


def _content(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()
