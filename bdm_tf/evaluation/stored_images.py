"""Images from a file, whatever made them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.lib.format import MAGIC_PREFIX
from tqdm import tqdm

from bdm_tf.data.folder import EXTENSIONS, image_files
from bdm_tf.data.pipeline import to_uint8
from bdm_tf.data.resize import decode_file
from bdm_tf.evaluation.conditions import ANY, Conditions
from bdm_tf.system.errors import UserError, first_line
from bdm_tf.system.files import check_no_pipe, read_npz

_WANTED = "an array of uint8 or float, [N, H, W, C], or a folder of images"
_NEARLY = 0.05  # by so much resizing goes beyond a range


class StoredImages:
    """Images from a `.npz` (`images`, `arr_0`, its only array, or the samples that
    `launch/restore.py` wrote), a `.npy` or a folder of files.

    Args:
        path: of the file or folder.
        flag: what it was given as.

    Arrays are uint8 `[N, H, W, C]` or `[N, H, W]`, or float in [-1, 1]. Files must have the same
    size and channels. They are drawn in a fixed random order: they may be sorted by class, and some
    figures are of the first so many, or of parts.

    Attributes:
        images: uint8 `[N, H, W, C]`, in the order of the file, or of the files' names.

    Raises:
        UserError: there are none in it, or they are not finite or out of range.
    """

    model = classes = None

    def __init__(self, path: str, flag: str = "--images"):
        name = f"{flag}={path}"
        images = _array(path, flag)
        if images.dtype.kind not in "buif":
            kind = {"U": "text", "S": "text", "O": "objects"}.get(images.dtype.kind, images.dtype)
            raise UserError(f"{name} holds {kind}, no images: give {_WANTED}")
        if images.ndim == 3 and images.shape[2] in (1, 3) and images.shape[1] > 3:
            raise UserError(f"{name} is one image of shape {images.shape}: give [N, H, W, C]")
        if images.ndim == 3:  # grey
            images = images[..., None]
        if images.ndim and not len(images):
            raise UserError(f"{name} holds no images: its shape is {images.shape}")
        if images.ndim != 4 or not images.size:
            raise UserError(
                f"{name} has shape {images.shape}, must be [N, H, W, C] or, grey, [N, H, W]"
            )
        if images.shape[3] not in (1, 3):
            way_out = "give 1 or 3 channels"
            if images.shape[1] in (1, 3):
                way_out = "it seems to be [N, C, H, W]: give images.transpose(0, 2, 3, 1)"
            raise UserError(f"{name} has shape {images.shape}, not [N, H, W, C]; {way_out}")
        if images.dtype != np.uint8:
            images = self._from_floats(images, name)
        self.images = images
        self._order = np.random.default_rng(0).permutation(len(images))
        self.image_shape = images.shape[1:]
        self.num_images = len(images)
        self._described: dict = {"images_sha256": hashlib.sha256(images.tobytes()).hexdigest()}

    def take(self, count: int, seed: int) -> None:
        """Keeps so many of the images, drawn at random: files are often sorted by class."""
        self._order = np.random.default_rng(seed).permutation(self.num_images)[:count]
        self.num_images = count
        self._described |= {"seed": seed}

    def describe(self, seed: int, num_steps: int) -> dict:
        """What a result must say about where its images come from."""
        del seed, num_steps
        return self._described

    def draw(
        self, batch_size: int, seed: int, num_steps: int, conditions: Conditions = ANY
    ) -> Callable[[int], np.ndarray]:
        """A function that reads a batch."""
        del seed, num_steps, conditions
        return lambda first: self.images[self._order[first : first + batch_size]]

    def _from_floats(self, images: np.ndarray, name: str) -> np.ndarray:
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(
                f"{name} is {images.dtype}, must be uint8 in [0, 255] or float in [-1, 1]"
            )
        bad = ~np.isfinite(images).all(axis=(1, 2, 3))
        if bad.any():
            raise UserError(
                f"{name}: {bad.sum()} of {len(images)} images are not finite, the first "
                f"is number {bad.argmax()}"
            )
        low, high = images.min(), images.max()
        if low < -1.0 - _NEARLY or high > 1.0 + _NEARLY:
            raise UserError(
                f"{name} has floats from {low:.4g} to {high:.4g}; they must lie in "
                "[-1, 1]. uint8 in 0..255 is taken as it is"
            )
        if low >= -_NEARLY:
            raise UserError(
                f"{name} has floats from {low:.4g} to {high:.4g}, as if they lay in "
                "[0, 1]; scale them to [-1, 1], or give uint8 in 0..255"
            )
        return to_uint8(tf.constant(images, tf.float32)).numpy()


def _array(path: str, flag: str) -> np.ndarray:
    name = f"{flag}={path}"
    if tf.io.gfile.isdir(path):
        return _folder(path, name)
    if path.lower().endswith(EXTENSIONS):
        raise UserError(f"{name} is a single image: give the folder that the images are in")
    check_no_pipe(path, flag)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            start = file.read(len(MAGIC_PREFIX))
            if start == MAGIC_PREFIX:
                return np.load(io.BytesIO(start + file.read()), allow_pickle=False)
        arrays = read_npz(path)
    except MemoryError as error:
        raise UserError(f"{name} claims to hold more than fits into memory") from error
    except (ValueError, OSError, EOFError, tf.errors.OpError) as error:
        reason = (
            "it holds Python objects, no numbers" if "pickle" in str(error) else first_line(error)
        )
        raise UserError(f"{name} cannot be read: {reason}; give {_WANTED}") from error
    for array in ("images", "arr_0"):
        if array in arrays:
            return arrays[array]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if (samples := arrays.get("samples")) is not None and samples.ndim == 5:  # of each image
        return samples.reshape(-1, *samples.shape[2:])
    raise UserError(f"{name} has the arrays {sorted(arrays)}; the images must be called 'images'")


def _folder(path: str, name: str) -> np.ndarray:
    files, left_out = image_files(path)
    if not files:
        raise UserError(f"{name} is a folder without images")
    if left_out:
        beside = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        print(f"{name}: {len(files)} images; left out: {beside}", flush=True)
    images: list[np.ndarray] = []
    for file in tqdm(files, f"reading {path}", unit="img", delay=2):
        try:
            images.append(decode_file(file, None, None))
        except ValueError as error:
            raise UserError(f"{name}: {error}") from error
        if images[-1].shape != images[0].shape:
            raise UserError(
                f"{name}: {file} has the shape {images[-1].shape}, {files[0]} "
                f"{images[0].shape}; all must have the same"
            )
    return np.stack(images)
