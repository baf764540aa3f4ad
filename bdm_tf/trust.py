"""How far a network's estimates can be trusted, measured for each frequency and time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from bdm_tf.angles import times_of_even_angles
from bdm_tf.data.pipeline import to_unit_range
from bdm_tf.denoiser import Denoiser
from bdm_tf.noise import normal_rows
from bdm_tf.priors import Batches
from bdm_tf.spectrum import needed
from bdm_tf.system.errors import UserError

_TIMES = 33
_SEED = (0, 0x7472)  # of the noise that trust is measured with


@dataclass(frozen=True)
class Trust:
    """The slope of the true coefficient's regression on the estimate, in [0, 1].

    `slope = E[(u_x - m) (u_x_hat - m)] / E[(u_x_hat - m)^2]`: 1 where the network is as good as it
    can be, `C / (C + e^2)` where the estimate is the truth and an error of variance e^2 beside it.

    Attributes:
        times: `[K]`, rising from 0 to 1.
        slope: float32 `[K, H, W, C]`.

    Raises:
        UserError: the arrays are none of these.
    """

    times: np.ndarray
    slope: np.ndarray

    def __post_init__(self):
        times, slope = self.times, self.slope
        if times.ndim != 1 or len(times) < 2 or not (np.diff(times) > 0).all():
            raise UserError("trust is measured at times that rise")
        if slope.ndim != 4 or len(slope) != len(times):
            raise UserError(f"trust has slopes [{len(times)}, H, W, C], not {slope.shape}")
        if not ((slope >= 0) & (slope <= 1)).all():
            raise UserError("the slopes of trust lie in [0, 1]")

    def at(self, t: tf.Tensor) -> tf.Tensor:
        """The slopes at times `[B]`, `[B, H, W, C]`, on straight lines between those measured."""
        times = tf.constant(self.times, tf.float32)
        high = tf.clip_by_value(tf.searchsorted(times, t), 1, len(self.times) - 1)
        low = high - 1
        share = (t - tf.gather(times, low)) / (tf.gather(times, high) - tf.gather(times, low))
        share = tf.clip_by_value(share, 0.0, 1.0)[:, None, None, None]
        slope = tf.constant(self.slope, tf.float32)
        return (1.0 - share) * tf.gather(slope, low) + share * tf.gather(slope, high)


def measure_trust(
    denoiser: Denoiser,
    batches: Batches,
    num_images: int = 1000,
    labels: Callable[[int], np.ndarray] | None = None,
) -> Trust:
    """Diffuses training images to some times and compares the estimates with the images.

    Args:
        denoiser: without a projection, and with the images' spectrum.
        batches: called for a pass over the images: uint8 `[n, H, W, C]`.
        num_images: how many of them are looked at, the first.
        labels: finds the classes int32 `[n]` of the first n of them, where labels are learnt.
    """
    classes = labels(num_images) if labels else None
    process, spectrum = denoiser.process, needed(denoiser.spectrum, "SpectralShrink")
    places = tf.linspace(0.0, 1.0, _TIMES)
    times = times_of_even_angles(process, places, spectrum, power=0.0).numpy()

    @tf.function(autograph=False)
    def sums(images, first, t, label=None):
        x, t = to_unit_range(images), tf.fill([images.shape[0]], t)
        eps = process.basis.noise(normal_rows(tf.constant(_SEED), first, images.shape))
        given = denoiser if label is None else denoiser.given(label)
        _, u_x_hat = given(process.diffuse(x, t, eps), t)
        found = tf.cast(u_x_hat - spectrum.mean, tf.float64)
        true = tf.cast(process.basis.to_frequency(x) - spectrum.mean, tf.float64)
        return tf.reduce_sum(found * true, 0), tf.reduce_sum(found**2, 0)

    together = np.zeros((2, _TIMES, *process.image_shape))
    first = 0
    for images in batches():
        images = images[: num_images - first]
        if not len(images):
            break
        label = [] if classes is None else [tf.constant(classes[first : first + len(images)])]
        for k, t in enumerate(times):
            together[:, k] += sums(tf.constant(images), tf.constant(first), tf.constant(t), *label)
        first += len(images)
    covariance, variance = together
    slope = np.divide(covariance, variance, out=np.zeros_like(variance), where=variance > 0)
    return Trust(times, np.clip(slope, 0.0, 1.0).astype(np.float32))
