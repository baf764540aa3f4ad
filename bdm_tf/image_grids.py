"""Grids of images as PNG files."""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from bdm_tf.classes import EACH
from bdm_tf.saved_models import (
    check_steps,
    chosen_classes,
    load_saved_model,
    model_info,
    warn_of_few_steps,
)
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import (
    MARK,
    check_replaces,
    check_writable,
    write_atomically,
    write_npz,
    writing,
)
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
    """Writes a `grid` of uint8 images as PNG, small ones enlarged by whole pixels."""
    canvas = grid(images, columns)
    factor = max(1, min_side // max(canvas.shape[:2]))
    canvas = canvas.repeat(factor, axis=0).repeat(factor, axis=1)
    content = io.BytesIO()
    about = PngInfo()
    about.add_text("Software", MARK)
    picture = Image.fromarray(canvas[..., 0] if canvas.shape[2] == 1 else canvas)
    picture.save(content, "PNG", pnginfo=about)
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
    saved_model: str,
    output: str,
    *,
    num_images: int | None,
    seed: int,
    first: int,
    num_steps: int,
    label: str | None = None,
    guidance: float | None = None,
) -> None:
    """Draws images from a SavedModel into a grid (.png) or an array `images` (.npz).

    Args:
        saved_model, output: where it is and what to write; `~` is the home folder.
        num_images: how many; None is 64, or 8 a class if there is to be a row of each.
        seed, first: of the noise, and the number of the first image.
        num_steps: of sampling; 0 is the model's own.
        label: a class by name or number, "each" for all in turn, a row a class; None draws them as
            the training images have them.
        guidance: None is the model's own.

    Raises:
        UserError: `saved_model` is no SavedModel of this library or does not take that many steps,
            the images do not fit into memory, or `output` cannot be written; what was drawn is then
            in the system's temporary folder, if that has room.
    """
    saved_model, output = os.path.expanduser(saved_model), os.path.expanduser(output)
    check_writable(output)
    check_replaces(output, ["images"])
    info = model_info(saved_model)
    check_steps(info, num_steps, "--num_steps")
    warn_of_few_steps(info, num_steps)
    if num_images is None:
        num_images = 8 * len(info.get("class_names", ())) if label == EACH else 64
    classes = chosen_classes(info, label, guidance, num_images)
    model = load_saved_model(saved_model)
    images = _room(num_images, info["image_shape"])
    # Of version 0.1.0, which did not say: its default.
    configured = info["config"].get("export_saved_model.chunk_size", 16)
    chunk_size = int(info.get("chunk_size", configured))
    with without_tensor_float_32(), tqdm(total=num_images, unit="img", delay=2) as bar:
        while bar.n < num_images:
            start = first + bar.n
            count = min(chunk_size - start % chunk_size, num_images - bar.n)
            given = {} if guidance is None else {"guidance": tf.constant(guidance)}
            if classes is not None:
                given["label"] = tf.constant(classes[bar.n : bar.n + count])
            images[bar.n : bar.n + count] = interruptible(
                model.sample,
                seed=tf.constant([0, seed]),
                num_images=tf.constant(count),
                num_steps=tf.constant(num_steps),
                first=tf.constant(start),
                **given,
            )
            bar.update(count)
    columns = None
    if label == EACH and not num_images % len(info["class_names"]):
        columns = num_images // len(info["class_names"])
    with writing_drawn(output, images):
        if output.lower().endswith(".npz"):
            write_npz(output, {"images": images}, compressed=True)
        else:
            write_grid(images, output, columns=columns)
    print(f"wrote {num_images} images to {output}")


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


def _room(num_images: int, image_shape: Sequence[int]) -> np.ndarray:
    try:
        return np.empty((num_images, *image_shape), np.uint8)
    except MemoryError as error:
        size = num_images * math.prod(image_shape) / 2**30
        raise UserError(
            f"--num_images={num_images} needs {size:.0f} GiB of memory: draw fewer at a time, the "
            "next with --first"
        ) from error
