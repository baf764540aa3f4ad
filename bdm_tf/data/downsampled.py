"""Images of another source at a fraction of its size: what a low-resolution stage learns."""

from __future__ import annotations

import hashlib

import gin
import numpy as np
import tensorflow as tf

from bdm_tf.data.images import Images
from bdm_tf.data.sources import check_source, load_splits
from bdm_tf.system.errors import UserError, check_counts


@gin.register
class Downsampled:
    """A data source whose images are the means of `factor x factor` pixels of another's.

    Args:
        source: the other data source, such as `@TFDSImages()`.
        factor: at least 2; the other's height and width must be multiples of it.
    """

    def __init__(self, source, factor: int = 2):
        check_source("Downsampled.source", source)
        check_counts("Downsampled", 2, factor=factor)
        self._source, self._factor = source, int(factor)

    @property
    def splits_overlap(self) -> bool:
        """Whether the other source's two splits share images."""
        return getattr(self._source, "splits_overlap", False)

    def load(self, data_dir: str | None = None, on_corrupt_image: str = "stop"):
        """The other source's two splits, made smaller; see its `load`.

        Raises:
            UserError: its own, or for sides that are no multiples of `factor`.
        """
        splits = load_splits(self._source, data_dir, on_corrupt_image)
        train, evaluation = (images and _Means(images, self._factor) for images in splits)
        return train, evaluation

    def image_shape(self) -> tuple[int, int, int]:
        """The images' `(H, W, C)`, for which no data need be there."""
        return _smaller(self._source.image_shape(), self._factor)


class _Means(Images):
    """Box averages of other images, as integers; halves are rounded up."""

    def __init__(self, images: Images, factor: int):
        self._images, self._factor = images, factor
        self.image_shape = _smaller(images.image_shape, factor)
        self.num_images, self.class_names = images.num_images, images.class_names
        self.description = {**images.description, "downsampled_by": str(factor)}

    def train_batches(self, **given):
        batches = self._images.train_batches(**given)
        if given.get("with_labels"):
            return batches.map(lambda images, labels: (self._means(images), labels))
        return batches.map(self._means)

    def labels(self, num_images=None):
        return self._images.labels(num_images)

    def at(self, places):
        return self._means(self._images.at(places)).numpy()

    def in_order(self, batch_size):
        for images in self._images.in_order(batch_size):
            yield self._means(images).numpy()

    def content_key(self):
        return self._key(self._images.content_key())

    def source_key(self):
        return self._key(self._images.source_key())

    def failure_by(self, error):
        return self._images.failure_by(error)

    def _key(self, of_the_others: str) -> str:
        return hashlib.sha256(f"{of_the_others} by {self._factor}".encode()).hexdigest()

    def _means(self, images: np.ndarray | tf.Tensor) -> tf.Tensor:
        """uint8 `[n, H, W, C]` of the other source's `[n, factor H, factor W, C]`."""
        height, width, channels = self.image_shape
        blocks = [-1, height, self._factor, width, self._factor, channels]
        sums = tf.reduce_sum(tf.reshape(tf.cast(images, tf.int32), blocks), axis=[2, 4])
        pixels = self._factor**2
        return tf.cast((sums + pixels // 2) // pixels, tf.uint8)


def _smaller(image_shape: tuple[int, int, int], factor: int) -> tuple[int, int, int]:
    height, width, channels = image_shape
    if height % factor or width % factor:
        raise UserError(
            f"Downsampled.factor={factor} must divide the sides of the images, which are "
            f"{height}x{width}"
        )
    return height // factor, width // factor, channels
