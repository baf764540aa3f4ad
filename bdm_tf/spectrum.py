"""Mean and variance of the training images' coefficients: what each frequency has to say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from bdm_tf.diffusion.bases import Basis
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import read_npz, write_npz

# What rounding leaves of the variance of a coefficient that is the same in all images.
_ROUNDING = 1e-20
Batches = Callable[[], Iterable[np.ndarray]]


class Spectrum:
    """Mean and variance of each coefficient `u_x = V^T x` of images x in [-1, 1].

    Attributes:
        mean, variance: float32 `[H, W, C]`.
        image_shape: `(H, W, C)`.
        trust: what a network's estimates of the coefficients are worth, once it was measured.

    Args:
        mean: m, `[H, W, C]`.
        variance: C, shaped like `mean`; 0 where a coefficient never varies.

    Raises:
        UserError: the arrays have different shapes, are not finite, or a variance is negative.
    """

    def __init__(self, mean, variance):
        self.mean, self.variance = np.float32(mean), np.float32(variance)
        if self.mean.ndim != 3 or self.mean.shape != self.variance.shape:
            raise UserError(
                f"a spectrum has a mean and a variance of one shape [H, W, C], not of "
                f"{self.mean.shape} and {self.variance.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.variance).all()):
            raise UserError("a spectrum's mean and variance must be finite")
        if (self.variance < 0).any():
            raise UserError(f"a spectrum's variances must be at least 0, not {self.variance.min()}")
        self.image_shape = self.mean.shape
        self.trust: Any = None

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation of each coefficient, float32 `[H, W, C]`."""
        return np.sqrt(self.variance)

    def sha256(self) -> str:
        """What names its content, in hexadecimal digits."""
        return hashlib.sha256(self.mean.tobytes() + self.variance.tobytes()).hexdigest()


def measure_spectrum(batches: Batches, basis: Basis) -> Spectrum:
    """The spectrum of images, in one pass, by sums in float64.

    Args:
        batches: called for a pass over the images: uint8 `[n, H, W, C]`.
        basis: whose coefficients are meant.
    """
    origin, count = None, 0
    for images in batches():
        images = images.astype(np.float64)
        if origin is None:  # differences to one image are small, and 0 where nothing varies
            origin = images[0]
            inverse = basis.inverse_matrices(*origin.shape[:2])
            total, squares = np.zeros(origin.shape), np.zeros(origin.shape)
        u = _coefficients(inverse, (images - origin) / 127.5)
        total += u.sum(0)
        squares += np.square(u).sum(0)
        count += len(u)
    if origin is None:
        raise UserError("there are no training images to measure a spectrum from")
    mean = total / count
    variance = squares / count - mean**2
    variance[variance < _ROUNDING] = 0.0
    return Spectrum(_coefficients(inverse, origin / 127.5 - 1.0) + mean, variance)


def write_spectrum(path: str, spectrum: Spectrum, basis: Basis) -> None:
    """Writes a spectrum, and the basis that it was measured in, to an `.npz`, atomically."""
    rows, columns = basis.matrices(*spectrum.image_shape[:2])
    arrays = {"mean": spectrum.mean, "variance": spectrum.variance, "rows": rows}
    write_npz(path, {**arrays, "columns": columns})


def read_spectrum(path: str, process) -> Spectrum:
    """Reads what `write_spectrum` wrote.

    Args:
        path: of the `.npz`.
        process: the diffusion process that it is for.

    Raises:
        UserError: it cannot be read, or is of images of another shape or in another basis.
    """
    try:
        arrays = read_npz(path, needed=("mean", "variance", "rows", "columns"))
        spectrum = Spectrum(arrays["mean"], arrays["variance"])
        measured_in = arrays["rows"], arrays["columns"]
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise UserError(
            f"{path} cannot be read: {error}; remove it, and training measures it anew"
        ) from error
    check_shape(spectrum, process, path)
    matrices = process.basis.matrices(*process.image_shape[:2])
    for there, here in zip(measured_in, matrices):
        if there.shape != here.shape or not np.allclose(there, here, atol=1e-6):
            raise UserError(
                f"{path} was measured in another basis than the model's "
                f"{type(process.basis).__name__}: give another --workdir"
            )
    return spectrum


def check_shape(spectrum: Spectrum, process, name: str = "the spectrum") -> None:
    """Raises a `UserError` if a spectrum is of images of another shape than the process's."""
    if spectrum.image_shape != tuple(process.image_shape):
        raise UserError(
            f"{name} is of images of shape {spectrum.image_shape}, the model's are of "
            f"{tuple(process.image_shape)}"
        )


def needed(spectrum: Spectrum | None, who: str) -> Spectrum:
    """A spectrum that must be there.

    Raises:
        UserError: it is None.
    """
    if spectrum is None:
        raise UserError(
            f"{who} needs the mean and variance of the training images' coefficients "
            "(spectrum.npz in the workdir): the training command, given again with all that is "
            f"given here, {who} too, measures them; in Python, give Denoiser a spectrum"
        )
    return spectrum


def _coefficients(inverse: tuple[np.ndarray, np.ndarray], x: np.ndarray) -> np.ndarray:
    rows, columns = inverse
    return np.einsum("ih,...hwc,jw->...ijc", rows, x, columns, optimize=True)
