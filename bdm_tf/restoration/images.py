"""Images and masks as a user gives them to be restored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from bdm_tf.data.folder import EXTENSIONS, image_files
from bdm_tf.data.resize import decode_file, fit
from bdm_tf.evaluation.stored_images import StoredImages
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import check_no_pipe


def read_images(
    flag: str, path: str, shape: Sequence[int], resizes: bool, way_out: str = ""
) -> np.ndarray:
    """Reads images, in the order of their names, as uint8 `[N, H, W, C]`.

    Args:
        flag: what the path was given as.
        path: an image file, a folder of such, or a `.npz` or `.npy` of images.
        shape: `(H, W, C)`. Images of other colours are converted.
        resizes: whether images of another size are resized, as in training, or refused.
        way_out: what to say besides, if they are refused.

    Raises:
        UserError: there are none, one cannot be read, or it has another size.
    """
    if not tf.io.gfile.exists(path):
        raise UserError(f"{flag}={path} does not exist")
    files = [path]
    if tf.io.gfile.isdir(path):
        files, _ = image_files(path)
        if not files:
            raise UserError(f"{flag}={path} is a folder without images")
    if path.lower().endswith((".npz", ".npy")):
        stored = StoredImages(path, flag)
        images = list(stored.images)
        names = [f"{path}, image {number}" for number in range(len(images))]
    elif files == [path] and not path.lower().endswith(EXTENSIONS):
        raise UserError(
            f"{flag}={path} is of no known kind: give an image ({', '.join(EXTENSIONS)}), a folder "
            "of images, a .npz or a .npy"
        )
    else:
        images, names = [_decoded(flag, file) for file in files], files
    others = [name for name, image in zip(names, images) if image.shape[:2] != tuple(shape[:2])]
    if others and not resizes:
        found = images[names.index(others[0])].shape
        raise UserError(
            f"{flag}: {others[0]} has {found[0]}x{found[1]} pixels, must have "
            f"{shape[0]}x{shape[1]}{way_out}"
        )
    if others:
        print(f"{len(others)} of {len(images)} images resized to {shape[0]}x{shape[1]}")
    converted = sum(image.shape[2] != shape[2] for image in images)
    if converted:
        kind = "grey" if shape[2] == 1 else "colour"
        print(f"{converted} of {len(images)} images made {kind}, as the model's are")
    return np.stack([_fitted(image, shape) for image in images])


def read_mask(path: str, size: Sequence[int]) -> np.ndarray:
    """Reads a mask, bool `[H, W]`: True where it is white.

    Raises:
        UserError: it cannot be read, or has another size.
    """
    if path.lower().endswith((".npz", ".npy")):
        raise UserError(f"--mask={path} must be an image, white where pixels are to be drawn")
    mask = _decoded("--mask", path)
    if mask.shape[:2] != tuple(size):
        raise UserError(
            f"--mask={path} has {mask.shape[0]}x{mask.shape[1]} pixels, the model's images "
            f"{size[0]}x{size[1]}"
        )
    return mask.mean(-1) >= 127.5


def _decoded(flag: str, path: str) -> np.ndarray:
    check_no_pipe(path, flag)
    try:
        return decode_file(path, None, None)
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from error


def _fitted(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return fit(picture, (shape[0], shape[1]), shape[2])
