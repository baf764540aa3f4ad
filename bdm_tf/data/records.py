"""Images from the records of a prepared TFDS data set."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
import tensorflow as tf

from bdm_tf.data.images import Images, content_sha256, listing_sha256
from bdm_tf.system.errors import UserError, first_line

SHUFFLE_BUFFER = 10_000  # encoded records
# A file that is damaged, lost, too short, or of other records.
_DAMAGE = (
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
)


class RecordImages(Images):
    """Records of a prepared TFDS data set, too many to be held decoded.

    Each epoch shuffles the shards, then the encoded records in a buffer. Resuming skips encoded
    records; only what is used is decoded.

    Args:
        shards: `(path, skip, count)`: of each file, how many records to take, and after how many.
        num_images: records in all shards.
        image_shape: `(H, W, C)`.
        decode: `decode(record) -> uint8 [H, W, C]` in TensorFlow operations.
        decoded_as: what `decode` takes from a record, in words, for `content_key`.
        read: `read(path)` -> the dataset of a file's encoded records.
        class_names: of the images' classes.
        label: `label(record) -> int32 []`, the class, in TensorFlow operations.
    """

    def __init__(
        self,
        shards: list[tuple[str, int, int]],
        num_images: int,
        image_shape: tuple[int, int, int],
        decode: Callable[[tf.Tensor], tf.Tensor],
        decoded_as: str = "",
        read: Callable[[tf.Tensor], tf.data.Dataset] = tf.data.TFRecordDataset,
        class_names: Sequence[str] = (),
        label: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ):
        self.num_images, self.image_shape = num_images, image_shape
        self._paths, self._skips, self._counts = zip(*shards)
        self._shards = shards
        self._decode, self._decoded_as, self._read = decode, decoded_as, read
        self.class_names, self._label = tuple(class_names), label

    def overlaps(self, other: RecordImages) -> bool:
        """Whether some record is in both."""

        def ends(shard):
            _, skip, count = shard
            return skip, math.inf if count < 0 else skip + count

        pairs = [(ends(a), ends(b)) for a in self._shards for b in other._shards if a[0] == b[0]]
        return any(max(a[0], b[0]) < min(a[1], b[1]) for a, b in pairs)

    def train_batches(self, *, batch_size, seed, first_step, rows=None, with_labels=False):
        low, high = rows or (0, batch_size)
        first_epoch, skip = divmod(first_step * batch_size, self.num_images)
        epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
        records = epochs.flat_map(lambda epoch: self._epoch(epoch, seed)).skip(skip)
        if (low, high) != (0, batch_size):
            batches = records.batch(batch_size, drop_remainder=True)
            records = batches.map(lambda batch: batch[low:high]).unbatch()

        def decode(record):
            image = self._decode(record)
            return (image, self._label(record)) if with_labels else image

        images = records.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return images.batch(high - low, drop_remainder=True)

    def labels(self, num_images=None):
        count = self.num_images if num_images is None else num_images
        labels = self._records().map(self._label).take(count).batch(10_000)
        return np.concatenate(list(self._found(labels)))

    def at(self, places):
        is_wanted = tf.constant(np.isin(np.arange(self.num_images), places))
        records = self._records().enumerate().filter(lambda place, _: tf.gather(is_wanted, place))
        images = records.take(len(places)).map(
            lambda _, record: self._decode(record), num_parallel_calls=tf.data.AUTOTUNE
        )
        return np.stack(list(self._found(images)))

    def in_order(self, batch_size):
        return self._found(self._decoded().batch(batch_size))

    def content_key(self):
        kind = [self._decoded_as.encode()]
        return content_sha256(self.image_shape, chain(kind, self._found(self._records())))

    def source_key(self):
        return listing_sha256(self._paths)

    def failure_by(self, error):
        if not isinstance(error, _DAMAGE):
            return None
        for path, skip, count in zip(self._paths, self._skips, self._counts):
            try:
                for _ in self._shard(path, skip, count).map(self._decode):
                    pass
            except _DAMAGE as reason:
                return UserError(
                    f"{path} is damaged or lost: {first_line(reason).rstrip('.')}; bring it back, "
                    f"or remove {os.path.dirname(path)} to have the data set prepared anew"
                )
        return None

    def _found(self, dataset: tf.data.Dataset) -> Iterator:
        """The elements of a dataset as arrays.

        Raises:
            UserError: a file is damaged or lost.
        """
        try:
            yield from dataset.as_numpy_iterator()
        except _DAMAGE as error:
            failure = self.failure_by(error)
            if failure is None:
                raise
            raise failure from error

    def _records(self) -> tf.data.Dataset:
        shards = tf.data.Dataset.from_tensor_slices(self._tables())
        return shards.flat_map(self._shard)

    def _decoded(self) -> tf.data.Dataset:
        return self._records().map(
            self._decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    def _tables(self):
        return (
            tf.constant(self._paths),
            tf.constant(self._skips, tf.int64),
            tf.constant(self._counts, tf.int64),
        )

    def _epoch(self, epoch, seed):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(self._paths)), tf.stack([tf.constant(seed, tf.int64), epoch])
        )
        shards = tf.data.Dataset.from_tensor_slices(
            tuple(tf.gather(table, order) for table in self._tables())
        )
        records = shards.interleave(self._shard, cycle_length=16)
        buffer = min(SHUFFLE_BUFFER, self.num_images)
        tf.random.set_seed(1)  # this graph's, in place of the global one
        return records.shuffle(buffer, seed=epoch * 1_000_003 + seed)

    def _shard(self, path, skip, count):
        """The records of a file; fewer than there should be are an error."""
        records = self._read(path).skip(skip).take(count)
        return records.apply(tf.data.experimental.assert_cardinality(count))
