"""How times are spread over [0, 1]: where a sampler looks, and where a network is trained."""

from __future__ import annotations

import abc
import math

import gin
import tensorflow as tf

from bdm_tf.angles import times_of_even_angles
from bdm_tf.spectrum import Spectrum, needed
from bdm_tf.system.errors import UserError, check_between


class TimeGrid(abc.ABC):
    """Maps places in [0, 1] to times; 0 to 0 and 1 to 1, or where sampling begins, rising.

    A sampler of T steps looks at the times of k / T; training draws places at random.

    Attributes:
        needs_spectrum: whether it needs the training images' `Spectrum`.
    """

    needs_spectrum = False

    @abc.abstractmethod
    def times(self, process, places: tf.Tensor, spectrum: Spectrum | None) -> tf.Tensor:
        """Returns the times of `places`, float32 `[n]`."""

    def check(self, process) -> None:
        """Raises a `UserError` if the process has no such grid."""
        if process.num_steps is not None:
            raise UserError(
                f"{type(self).__name__} is for processes in continuous time; this one's blur has "
                f"{process.num_steps} steps, which go with UniformGrid"
            )


@gin.register
class UniformGrid(TimeGrid):
    """Times are places: Algorithms 1 and 2."""

    def times(self, process, places, spectrum):
        return places

    def check(self, process):
        return


@gin.register
class PowerGrid(TimeGrid):
    """`t = last place^power`: with 2 the quadratic grid of Song et al. (2020) and of gDDIM.

    Args:
        power: from 0.1 to 10; above 1 it looks more often where there is little noise.
        last: the latest time, where samples begin with a draw of the prior; from 0.1 to 1, and no
            earlier than images and noise are nearly those of t = 1.
    """

    def __init__(self, power: float = 2.0, last: float = 1.0):
        check_between("PowerGrid.power", power, 0.1, 10)
        check_between("PowerGrid.last", last, 0.1, 1)
        self._power, self._last = power, last

    def times(self, process, places, spectrum):
        return self._last * places**self._power

    def check(self, process):
        super().check(process)
        if self._last == 1.0 or process.needs_spectrum:  # whose noise is not known yet
            return
        with tf.init_scope():
            alpha, sigma = process.alpha_sigma([self._last, 1.0])
            apart = tf.abs(alpha[0] - alpha[1]) + tf.abs(sigma[0] - sigma[1])
            alike = tf.reduce_all(apart <= 0.1 * sigma[1])
        if not alike:
            raise UserError(
                f"PowerGrid.last={self._last:g}: samples begin there with a draw of the prior, "
                "which is for t = 1, and the two times differ by more than a tenth of the noise: "
                "give a later one, up to 1.0"
            )


class _OfNoise(TimeGrid):
    """Even steps of some function of the ratio of noise to signal that all frequencies share."""

    @abc.abstractmethod
    def _height(self, log_ratio: tf.Tensor) -> tf.Tensor:
        """A rising function of `log(sigma_t / a_t)`, shaped like it."""

    @abc.abstractmethod
    def _log_ratio(self, height: tf.Tensor) -> tf.Tensor:
        """The inverse of `_height`."""

    def times(self, process, places, spectrum):
        low, high = (self._height(process.log_noise_to_signal([t])) for t in (0.0, 1.0))
        found = process.time_at(self._log_ratio(low + (high - low) * places))
        inside = (places > 0.0) & (places < 1.0)  # the ends are exact
        return tf.where(inside, found, places)

    def check(self, process):
        super().check(process)
        with tf.init_scope():
            low, high = process.log_noise_to_signal([0.0, 1.0]).numpy()
        if not low < high:
            raise UserError(
                f"{type(self).__name__} goes by the noise, which does not grow in this process: "
                "give UniformGrid or PowerGrid"
            )


@gin.register
class LogSNRGrid(_OfNoise):
    """Even steps of the scalar `log(a_t^2 / sigma_t^2)`: Lu et al., "DPM-Solver" (2022)."""

    def _height(self, log_ratio):
        return log_ratio

    def _log_ratio(self, height):
        return height


@gin.register
class KarrasGrid(_OfNoise):
    """Even steps of `(sigma_t / a_t)^(1 / rho)`: Karras et al. (2022), Eq. 5.

    Args:
        rho: from 1 to 100; the larger, the more it looks where there is little noise.
    """

    def __init__(self, rho: float = 7.0):
        check_between("KarrasGrid.rho", rho, 1, 100)
        self._rho = rho

    def _height(self, log_ratio):
        return tf.exp(log_ratio / self._rho)

    def _log_ratio(self, height):
        return self._rho * tf.math.log(height)


@gin.register
class LogNormalGrid(_OfNoise):
    """`ln(sigma_t / a_t)` is normal for places uniform in [0, 1]: EDM's training times.

    Karras et al. (2022), Table 1, cut off at the process's own least and most noise.

    Args:
        log_mean: P_mean, from -20 to 20.
        log_std: P_std, from 0.1 to 20.
    """

    def __init__(self, log_mean: float = -1.2, log_std: float = 1.2):
        check_between("LogNormalGrid.log_mean", log_mean, -20, 20)
        check_between("LogNormalGrid.log_std", log_std, 0.1, 20)
        self._mean, self._std = log_mean, log_std

    def _height(self, log_ratio):
        return 0.5 * tf.math.erfc((self._mean - log_ratio) / (self._std * math.sqrt(2.0)))

    def _log_ratio(self, height):
        return self._mean + self._std * tf.math.ndtri(height)


@gin.register
class FittedGrid(TimeGrid):
    """Times fitted to the data's spectrum: equal parts of the way to noise, in closed form.

    Even lengths of the curve of angles in `bdm_tf/angles.py`. Not in the paper.

    Args:
        power: from 0 to 10; coefficients are weighted by `C^power`: 1 is their share in the
            images' pixels, 0 weights all frequencies alike.
    """

    needs_spectrum = True

    def __init__(self, power: float = 1.0):
        check_between("FittedGrid.power", power, 0, 10)
        self._power = power

    def times(self, process, places, spectrum):
        spectrum = needed(spectrum, type(self).__name__)
        return times_of_even_angles(process, places, spectrum, self._power)

    def check(self, process):
        if process.is_deterministic:
            raise UserError("FittedGrid goes by noise, but sigma_t is 0")
        super().check(process)
