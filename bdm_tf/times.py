"""Times spread by how fast the images' own coefficients turn into noise.

Where a coefficient of variance C is Gaussian, let `tan(theta_t) = sigma_t / (alpha_t sqrt(C))`: the
angle is 0 for an image, pi / 2 for noise. With the optimal network a step of DDIM from t to s
multiplies the coefficient's standard deviation, relative to what it should be, by
`cos(theta_t - theta_s)`. So it is angles that steps should share evenly, those of all coefficients
at once: equal lengths of the curve that the angles make, each weighted by C. For noise alone, the
cosine schedule and C = 1 that is t itself; for blur it is the short time in which frequencies fade.
"""

from __future__ import annotations

import abc
import functools

import gin
import numpy as np
import tensorflow as tf

from bdm_tf.errors import UserError
from bdm_tf.spectrum import Spectrum, needed

_PLACES = 2000  # of a table of times
_AT_ONCE = 50


class TimeDistribution(abc.ABC):
    """What times a network is trained at.

    Attributes:
        needs_spectrum: whether it needs the training images' `Spectrum`.
    """

    needs_spectrum = False

    @abc.abstractmethod
    def __call__(self, process, places: tf.Tensor, spectrum: Spectrum | None) -> tf.Tensor:
        """Times `[B]` in [0, 1] from numbers `[B]` that are uniform in [0, 1]."""

    def check(self, process) -> None:
        """Raises a `UserError` if the process has no such times."""
        return


@gin.register
class UniformTimes(TimeDistribution):
    """Uniform in [0, 1] (Algorithm 2)."""

    def __call__(self, process, places, spectrum):
        return places


@gin.register
class SpectralTimes(TimeDistribution):
    """Uniform in the length of the curve of angles; see this module. Not in the paper.

    Args:
        power: coefficients are weighted by `C^power`; 1 is their share in the images' pixels, 0
            weights all frequencies alike.
    """

    needs_spectrum = True

    def __init__(self, power: float = 1.0):
        check_power(type(self).__name__, power)
        self._power = power

    def __call__(self, process, places, spectrum):
        return times_of_even_angles(process, places, needed(spectrum, "SpectralTimes"), self._power)

    def check(self, process):
        check_angles(type(self).__name__, process)


def check_power(owner: str, power: float) -> None:
    """Raises a `UserError` for a weight's exponent that is not a number, at least 0."""
    if not 0 <= power < np.inf:
        raise UserError(f"{owner}.power={power} must be at least 0")


def check_angles(owner: str, process) -> None:
    """Raises a `UserError` if a process has no angles in continuous time."""
    if process.is_deterministic:
        raise UserError(f"{owner} goes by noise, but sigma_t is 0")
    if process.num_steps is not None:
        raise UserError(
            f"{owner} is for processes in continuous time; this one's blur has "
            f"{process.num_steps} steps"
        )


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
