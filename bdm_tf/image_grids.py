"""Grids of images as PNG files."""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bdm_tf.system.errors import UserError
from bdm_tf.system.files import MARK, write_atomically, write_npz, writing

_FRAME, _LAST_FRAME = 200, 2000  # milliseconds


def grid(images: np.ndarray, columns: int | None = None, padding: int = 1) -> np.ndarray:
    """Lays uint8 images `[N, H, W, C]` out as one `[H', W', C]`, near square unless told."""
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.zeros((rows * columns, height + padding, width + padding, channels), np.uint8)
    canvas[:count, :height, :width] = images
    canvas = canvas.reshape(rows, columns, height + padding, width + padding, channels)
    canvas = canvas.transpose(0, 2, 1, 3, 4).reshape(rows * (height + padding), -1, channels)
    return canvas[: canvas.shape[0] - padding, : canvas.shape[1] - padding]


def write_grid(
    images: np.ndarray, path: str, min_side: int = 512, columns: int | None = None
) -> None:
    """Writes a `grid` of uint8 images as PNG, small ones enlarged by whole pixels."""
    content = io.BytesIO()
    about = PngInfo()
    about.add_text("Software", MARK)
    _picture(grid(images, columns), min_side).save(content, "PNG", pnginfo=about)
    write_atomically(path, content.getvalue())


def write_film(
    frames: np.ndarray, path: str, min_side: int = 512, columns: int | None = None
) -> None:
    """Writes a `grid` of each frame of uint8 `[F, N, H, W, C]` as a GIF that stays on the last."""
    content = io.BytesIO()
    first, *others = (_picture(grid(images, columns), min_side) for images in frames)
    durations = [*[_FRAME] * len(others), _LAST_FRAME]
    first.save(
        content,
        "GIF",
        save_all=True,
        append_images=others,
        duration=durations,
        loop=0,
        comment=MARK.encode(),
    )
    write_atomically(path, content.getvalue())


def _picture(canvas: np.ndarray, min_side: int) -> Image.Image:
    factor = max(1, min_side // max(canvas.shape[:2]))
    canvas = canvas.repeat(factor, axis=0).repeat(factor, axis=1)
    return Image.fromarray(canvas[..., 0] if canvas.shape[2] == 1 else canvas)


@contextlib.contextmanager
def without_tensor_float_32() -> Iterator[None]:
    """Samples drawn within have their products in float32, of which NVIDIA GPUs round the factors
    to 10 bits (TensorFloat-32) unless told. Evaluation draws so by default; a SavedModel that is
    loaded by TensorFlow alone draws as its process says.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


@contextlib.contextmanager
def writing_drawn(output: str, images: np.ndarray) -> Iterator[None]:
    """`writing` of images that took time to draw: if they cannot be, they are kept elsewhere."""
    try:
        with writing(output):
            yield
    except UserError as error:
        raise UserError(f"{error.message}; {_keep(images)}") from error


def _keep(images: np.ndarray) -> str:
    """Puts images that could not be written where they can; says in words whether that worked."""
    folder = None
    try:
        folder = tempfile.mkdtemp(prefix="bdm_tf_")
        path = os.path.join(folder, "images.npz")
        write_npz(path, {"images": images}, compressed=True)
    except (OSError, tf.errors.OpError):
        shutil.rmtree(folder or "", ignore_errors=True)
        return "the temporary folder could not take the images that were drawn, so they are lost"
    return f"the images that were drawn are in {path}"
