"""Grids of images as PNG files."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from bdm_tf.saved_models import check_steps, load_saved_model, model_info, warn_of_few_steps
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import check_replaces, check_writable, write_atomically, write_npz, writing
from bdm_tf.system.interrupts import interruptible


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
    """Writes a grid of uint8 images as PNG, small ones enlarged by whole pixels."""
    canvas = grid(images, columns)
    factor = max(1, min_side // max(canvas.shape[:2]))
    canvas = canvas.repeat(factor, axis=0).repeat(factor, axis=1)
    content = io.BytesIO()
    Image.fromarray(canvas[..., 0] if canvas.shape[2] == 1 else canvas).save(content, "PNG")
    write_atomically(path, content.getvalue())


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


def sample_to_file(
    saved_model: str, output: str, *, num_images: int, seed: int, first: int, num_steps: int
) -> None:
    """Draws images from a SavedModel into a grid (.png) or an array `images` (.npz).

    Raises:
        UserError: `saved_model` is no SavedModel of this library or does not take that many steps,
            the images do not fit into memory, or `output` cannot be written.
    """
    check_writable(output)
    check_replaces(output, ["images"])
    info = model_info(saved_model)
    check_steps(info, num_steps, "--num_steps")
    warn_of_few_steps(info, num_steps)
    model = load_saved_model(saved_model)
    images = _room(num_images, info["image_shape"])
    # Of version 0.1.0, which did not say: its default.
    configured = info["config"].get("export_saved_model.chunk_size", 16)
    chunk_size = int(info.get("chunk_size", configured))
    with without_tensor_float_32(), tqdm(total=num_images, unit="img", delay=2) as bar:
        while bar.n < num_images:
            start = first + bar.n
            count = min(chunk_size - start % chunk_size, num_images - bar.n)
            images[bar.n : bar.n + count] = interruptible(
                model.sample,
                seed=tf.constant([0, seed]),
                num_images=tf.constant(count),
                num_steps=tf.constant(num_steps),
                first=tf.constant(start),
            )
            bar.update(count)
    with writing(output):
        if output.lower().endswith(".npz"):
            write_npz(output, {"images": images}, compressed=True)
        else:
            write_grid(images, output)
    print(f"wrote {num_images} images to {output}")


def _room(num_images: int, image_shape: Sequence[int]) -> np.ndarray:
    try:
        return np.empty((num_images, *image_shape), np.uint8)
    except MemoryError as error:
        size = num_images * math.prod(image_shape) / 2**30
        raise UserError(
            f"--num_images={num_images} needs {size:.0f} GiB of memory: draw fewer at a time, the "
            "next with --first"
        ) from error
