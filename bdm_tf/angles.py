"""How fast the images' own coefficients turn into noise, in angles.

Where a coefficient of variance C is Gaussian, let `tan(theta_t) = sigma_t / (alpha_t sqrt(C))`: the
angle is 0 for an image, pi / 2 for noise. With the optimal network a step of DDIM from t to s
multiplies the coefficient's standard deviation, relative to what it should be, by
`cos(theta_t - theta_s)`. So it is angles that steps should share evenly, those of all coefficients
at once: equal lengths of the curve that the angles make, each weighted by C. For noise alone, the
cosine schedule and C = 1 that is t itself; for blur it is the short time in which frequencies fade.
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from bdm_tf.spectrum import Spectrum
from bdm_tf.system.errors import UserError

_PLACES = 2000  # of a table of times
_AT_ONCE = 50


def times_of_even_angles(
    process, places: tf.Tensor, spectrum: Spectrum, power: float = 1.0
) -> tf.Tensor:
    """Maps [0, 1] to times such that equal parts are equal lengths of the curve of angles.

    Args:
        process: the diffusion process.
        places: `[n]` in [0, 1].
        spectrum: of the training images' coefficients.
        power: of C in the weights.

    Returns:
        Times, float32 `[n]`, rising in `places`; 0 at 0 and 1 at 1.
    """
    with tf.init_scope():
        table = _table(process, spectrum, power)
    table = tf.constant(table)
    place = places * _PLACES
    low = tf.clip_by_value(tf.cast(place, tf.int32), 0, _PLACES - 1)
    share = place - tf.cast(low, tf.float32)
    return (1.0 - share) * tf.gather(table, low) + share * tf.gather(table, low + 1)


@functools.lru_cache(maxsize=8)
def _table(process, spectrum: Spectrum, power: float) -> np.ndarray:
    """Times at even places, float32 `[_PLACES + 1]`."""
    variance = np.float64(spectrum.variance)
    weight = variance**power * (variance > 0)  # what never varies says nothing
    if not weight.any():
        raise UserError("the training images are all the same: no coefficient of theirs varies")
    times = np.linspace(0.0, 1.0, _PLACES + 1)
    speed = np.zeros(_PLACES)
    for start in range(0, _PLACES, _AT_ONCE):
        part = times[start : start + _AT_ONCE + 1].astype(np.float32)
        alpha, sigma = process.alpha_sigma(part)
        angles = angle(alpha, sigma, spectrum).numpy().astype(np.float64)
        steps = np.einsum("thwc,hwc->t", np.diff(angles, axis=0) ** 2, weight)
        speed[start : start + _AT_ONCE] = np.sqrt(steps)
    length = np.concatenate([[0.0], np.cumsum(speed)])
    even = np.linspace(0.0, length[-1], _PLACES + 1)
    return np.interp(even, length, times).astype(np.float32)


def angle(alpha: tf.Tensor, sigma: tf.Tensor, spectrum: Spectrum) -> tf.Tensor:
    """`atan(sigma / (alpha sqrt(C)))` in [0, pi / 2]: 0 for an image, pi / 2 for noise.

    Args:
        alpha, sigma: what `alpha_sigma` returns for times `[B]`.
        spectrum: of the training images' coefficients.

    Returns:
        float32 `[B, H, W, C]`.
    """
    return tf.atan2(sigma, alpha * spectrum.deviation)
