"""Images from a file, whatever made them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bdm_tf.data.pipeline import to_uint8
from bdm_tf.errors import UserError
from bdm_tf.files import read_npz


class StoredImages:
    """Images from a `.npz`: `images`, uint8 `[N, H, W, C]`, or float in [-1, 1].

    Raises:
        UserError: there are none in it, or they are not finite or out of range.
    """

    model = None

    def __init__(self, path: str):
        try:
            arrays = read_npz(path)
        except (ValueError, OSError, tf.errors.OpError) as error:
            raise UserError(f"--images={path} cannot be read: {error}") from error
        if "images" not in arrays:
            raise UserError(f"--images={path} has no array 'images'; it has {sorted(arrays)}")
        images = arrays["images"]
        if images.ndim != 4 or not len(images):
            raise UserError(f"--images={path} has shape {images.shape}, must be [N, H, W, C]")
        if images.dtype != np.uint8:
            images = self._from_floats(images, path)
        self._images = images
        self.image_shape = images.shape[1:]
        self.num_images = len(images)
        self._described = {"images_sha256": hashlib.sha256(images.tobytes()).hexdigest()}

    def describe(self, seed: int, num_steps: int) -> dict:
        """What a result must say about where its images come from."""
        del seed, num_steps
        return self._described

    def draw(self, batch_size: int, seed: int, num_steps: int) -> Callable[[int], np.ndarray]:
        """A function that reads a batch."""
        del seed, num_steps
        return lambda first: self._images[first : first + batch_size]

    def _from_floats(self, images: np.ndarray, path: str) -> np.ndarray:
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(f"--images={path} is {images.dtype}, must be uint8 or float")
        bad = ~np.isfinite(images).all(axis=(1, 2, 3))
        if bad.any():
            raise UserError(
                f"--images={path}: {bad.sum()} of {len(images)} images are not finite, the first "
                f"is number {bad.argmax()}"
            )
        low, high = images.min(), images.max()
        if low < -1.001 or high > 1.001:
            raise UserError(
                f"--images={path} has floats from {low:.4g} to {high:.4g}; they must lie in "
                "[-1, 1]. uint8 in 0..255 is taken as it is"
            )
        if low >= 0:
            raise UserError(
                f"--images={path} has floats from {low:.4g} to {high:.4g} and none below 0, as if "
                "they lay in [0, 1]; scale them to [-1, 1], or give uint8 in 0..255"
            )
        return to_uint8(tf.constant(images, tf.float32)).numpy()
