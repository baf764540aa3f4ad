"""Images of any size to one size: cover the target, then cut out the centre."""

from __future__ import annotations

import io
import math

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from bdm_tf.system.errors import UserError, is_whole

# Pillow's own limits are for uploads of strangers; these are the user's images.
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**30
VERSION = 4  # goes up when the same file becomes other pixels
_LARGEST = 2**14  # pixels along a side
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # of EXIF
_NEARLY = 0.05  # of a range: by so much resizing goes beyond it


def checked_size(image_size) -> tuple[int, int] | None:
    """An int or a pair as `(height, width)`; None stays None."""
    if image_size is None:
        return None
    pair = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(pair) != 2 or not all(is_whole(v) and 0 < v <= _LARGEST for v in pair):
        raise UserError(
            f"image_size={image_size!r} must be a number or (height, width), from 1 to {_LARGEST}"
        )
    return int(pair[0]), int(pair[1])


def decode_file(
    path: str,
    size: tuple[int, int] | None,
    channels: int | None,
    max_megapixels: float = math.inf,
) -> np.ndarray:
    """Reads an image file of any format that Pillow knows as uint8 `[H, W, channels]`.

    Args:
        path: the file.
        size: `(H, W)`; None is the image's own.
        channels: 1 or 3; None is 1 for a grey image without transparency, 3 for all others.
        max_megapixels: of the image as it is in the file, in millions of pixels.

    Raises:
        ValueError: the file is no image, is larger, damaged or cannot be opened; the message names
            it.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read()
    except tf.errors.OpError as error:
        raise ValueError(f"{path} cannot be opened: {error.message}") from error
    if not content:
        raise ValueError(f"{path} is not a readable image: it is empty")
    if content.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a pointer of Git LFS, whose image `git lfs pull` fetches")
    try:
        image = Image.open(io.BytesIO(content))
        if getattr(image, "is_animated", False):
            logging.log_first_n(logging.WARNING, "%s and others: the first page alone", 1, path)
        megapixels = image.width * image.height / 1e6
        if megapixels <= max_megapixels:
            return fit(image, size, channels)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a readable image: unknown format") from error
    except Exception as error:  # a damaged file makes decoders raise anything
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is not a readable image: {reason}") from error
    raise ValueError(
        f"{path} has {megapixels:,.1f} megapixels, more than ImageFolder.max_megapixels="
        f"{max_megapixels:,g}: raise that, or make it smaller"
    )


def fit(image: Image.Image, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """Turns, converts, resizes and centre-crops a Pillow image; see `decode_file`."""
    orientation = image.getexif().get(_ORIENTATION)
    on_its_side = orientation in (5, 6, 7, 8)
    # Of a JPEG, 1/2, 1/4 or 1/8 is decoded where that is still twice the target: 4 times as fast.
    if size is not None:
        least = (2 * size[1], 2 * size[0])
        image.draft(None, least[::-1] if on_its_side else least)
    if orientation in _TURNS:  # `ImageOps.exif_transpose` stumbles over other tags
        image = image.transpose(_TURNS[orientation])
    if image.mode == "F" or image.mode.startswith("I"):
        image = _in_8_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if channels is None:
        channels = 1 if image.mode in ("1", "L") else 3
    if image.mode == "LAB":  # which Pillow makes RGB alone of
        image = image.convert("RGB")
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], method=Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(*image.size[::-1], channels)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits or of floats, which Pillow would clip instead of scaling them.

    Raises:
        ValueError: integers beyond 16 bits, or of 8 bits only, which would be black; floats that
            are neither about [0, 1] nor about [0, 255].
    """
    values = np.asarray(image)
    low, high = values.min(), values.max()  # NaN if there is one
    if image.mode == "F":
        top = 1 if high <= 1 + _NEARLY else 255
        known = -_NEARLY * top <= low and high <= (1 + _NEARLY) * top
        # Up to 2 would be black as they are, and are more likely [0, 1] after a resize.
        known = known and (top == 1 or high >= 2)
        kinds = "floats must lie in [0, 1] or [0, 255]"
    else:
        top, known = 65535, 0 <= low and (high > 255 or high == 0) and high <= 65535
        kinds = "integers of more than 8 bits must lie in [0, 65535], and are black up to 255"
    if not known:
        raise ValueError(f"its values go from {low:.7g} to {high:.7g}; {kinds}")
    values = np.clip(np.rint(values * (255 / top)), 0, 255) if top <= 255 else values // 256
    return Image.fromarray(values.astype(np.uint8))


def fit_tensor(image: tf.Tensor, size: tuple[int, int], channels: int) -> tf.Tensor:
    """What `fit` does, for uint8 `[h, w, c]` inside a TensorFlow graph."""
    height, width = size
    if image.shape == (height, width, channels):
        return image
    image = tf.cast(image, tf.float32)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.reduce_max(tf.constant([height, width], tf.float32) / shape)
    covering = tf.maximum(tf.cast(tf.round(shape * scale), tf.int32), [height, width])
    image = tf.image.resize(image, covering, method="bicubic", antialias=True)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    image = image[top : top + height, left : left + width]
    if image.shape[2] == 3 and channels == 1:
        image = tf.image.rgb_to_grayscale(image)
    elif image.shape[2] == 1 and channels == 3:
        image = tf.image.grayscale_to_rgb(image)
    image = tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
    return tf.ensure_shape(image, [height, width, channels])
