"""What may be asked for: what is seen of an image, and what a SavedModel is to draw from it."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bdm_tf.data.pipeline import to_uint8, to_unit_range
from bdm_tf.restoration.observations import Observation, blurred, shrunk
from bdm_tf.system.errors import UserError, check_between

_GREY = 128


class Task(abc.ABC):
    """Draws images from what is seen of them.

    Attributes:
        size: height and width of what is seen.
        resizes: whether what is seen may be resized to it without becoming something else.
        name: of the SavedModel's function that draws.
        repeats: whether that takes steps repeatedly.
    """

    resizes = False
    repeats = True
    name: str

    def __init__(self, size: tuple[int, int]):
        self.size = size

    @abc.abstractmethod
    def observe(self, images: np.ndarray, seed: int) -> np.ndarray:
        """What is seen of images: uint8 `[N, H, W, C]` to uint8 `[N, h, w, C]`."""

    @abc.abstractmethod
    def arguments(self, seen: np.ndarray) -> dict[str, np.ndarray]:
        """What the SavedModel's function takes for each image, besides seed and number."""

    @abc.abstractmethod
    def known_part(self, model, seen: np.ndarray) -> np.ndarray:
        """What is known of the image as a picture: uint8 `[N, H, W, C]`."""

    def baselines(self, seen: np.ndarray) -> dict[str, np.ndarray]:
        """Pictures uint8 `[N, H, W, C]`, by name, that samples are compared with."""
        return {}


class Vary(Task):
    """Noises and blurs to time t, and goes back."""

    resizes = True
    repeats = False
    name = "vary"

    def __init__(self, image_shape: Sequence[int], t: float):
        super().__init__((image_shape[0], image_shape[1]))
        check_between("--t", t, 0, 1, without_low=True)
        if np.float32(t) == 0:
            raise UserError(f"--t={t} is 0 in float32, as which it is taken: give more")
        self._t = t

    def observe(self, images, seed):
        return images

    def arguments(self, seen):
        return {"images": seen, "t": np.array(self._t, np.float32)}

    def known_part(self, model, seen):
        x = to_unit_range(seen)
        t = tf.fill([len(seen)], tf.constant(self._t, tf.float32))
        return to_uint8(model.diffuse(x=x, t=t, eps=tf.zeros_like(x))).numpy()


class _Observed(Task):
    """Draws what coefficients were lost in an observation."""

    name = "restore"

    def __init__(self, observation: Observation):
        super().__init__(observation.size)
        self._observation = observation

    def observe(self, images, seed):
        return self._observation.observe(images, seed)

    def arguments(self, seen):
        values, variance = self._observation.known(seen)
        return {"values": values, "variance": variance}

    def known_part(self, model, seen):
        return self._observation.known_part(seen)


class Deblur(_Observed):
    """Takes a Gaussian blur away."""

    def __init__(self, image_shape: Sequence[int], sigma_blur: float, noise: float):
        super().__init__(blurred(image_shape, sigma_blur, noise))

    def baselines(self, seen):
        return {"input": seen}


class Superresolve(_Observed):
    """Enlarges by a whole factor."""

    def __init__(self, image_shape: Sequence[int], factor: int, noise: float):
        super().__init__(shrunk(image_shape, factor, noise))
        self._target = image_shape[:2]

    def baselines(self, seen):
        large = tf.image.resize(tf.cast(seen, tf.float32), self._target, method="bicubic")
        return {"bicubic": np.clip(np.rint(large), 0, 255).astype(np.uint8)}


class Inpaint(Task):
    """Fills in what a mask says is unknown.

    Args:
        image_shape: `(H, W, C)`.
        unknown: bool `[H, W]`.
    """

    resizes = True
    name = "inpaint"

    def __init__(self, image_shape: Sequence[int], unknown: np.ndarray):
        super().__init__((image_shape[0], image_shape[1]))
        if unknown.all() or not unknown.any():
            found = "white: nothing is known" if unknown.all() else "below 128: nothing is unknown"
            raise UserError(f"--mask is all {found}; white (128 or more) is what is to be drawn")
        self._unknown = unknown

    def observe(self, images, seed):
        return np.where(self._unknown[..., None], np.uint8(_GREY), images)

    def arguments(self, seen):
        return {"images": seen, "unknown": np.repeat(self._unknown[None], len(seen), 0)}

    def known_part(self, model, seen):
        return self.observe(seen, 0)
