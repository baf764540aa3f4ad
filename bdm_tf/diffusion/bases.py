"""Bases in which the process is diagonal: `u = V^T z`, or `u = P^-1 z` (sections 3 and 4.1)."""

from __future__ import annotations

import abc

import gin
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from bdm_tf.diffusion.products import float64_product, orthonormal_product
from bdm_tf.system import files
from bdm_tf.system.errors import UserError, check_between, check_counts, check_text
from bdm_tf.system.paths import expanded

# Beyond it float32's rounding of u, 6e-8, would show in the pixels.
_LARGEST_CONDITION = 1e4


class Basis(abc.ABC):
    """A change of basis `x = P u`, one channel at a time; `P^-1 = P^T` unless a class says else.

    Images are `[B, H, W, C]` float32 and coefficients keep that shape. P is separable, a matrix for
    each axis, so that `x = P_rows u P_columns^T` for each channel. Sizes that a basis does not
    exist for raise a `UserError` in `matrices` and in all that is made from them.
    """

    @abc.abstractmethod
    def matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """`P_rows` `[H, H]` and `P_columns` `[W, W]`, float64; basis vectors are columns."""

    def inverse_matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """`P_rows^-1` `[H, H]` and `P_columns^-1` `[W, W]`, float64."""
        rows, columns = self.matrices(height, width)
        return rows.T, columns.T

    def frequencies(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of rows `[H]` and columns `[W]`, radians per pixel: `pi i / n`, i half periods."""
        return np.pi * np.arange(height) / height, np.pi * np.arange(width) / width

    def frequencies_squared(self, height: int, width: int) -> tf.Tensor:
        """Returns `lambda_ij = f_row,i^2 + f_column,j^2` as `[H, W, 1]`, which Eq. 26 blurs by."""
        self.matrices(height, width)  # raises for sizes that have none
        rows, columns = self.frequencies(height, width)
        return tf.constant(rows[:, None, None] ** 2 + columns[None, :, None] ** 2, tf.float32)

    def to_frequency(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `u = P^-1 x`."""
        return float64_product(*self.inverse_matrices(*x.shape[1:3]), x)

    def to_pixel(self, u: tf.Tensor) -> tf.Tensor:
        """Returns `x = P u`, the inverse of `to_frequency`."""
        return float64_product(*self.matrices(*u.shape[1:3]), u)

    def noise(self, white: tf.Tensor) -> tf.Tensor:
        """Returns noise in pixel space, `eps = P u_eps`, from standard normal noise (Eq. 29).

        It is returned as it is: white noise is white in every orthonormal basis (Eq. 28).
        """
        return white

    def pixel_variance(self, variance: tf.Tensor) -> tf.Tensor:
        """Returns the diagonal of `P diag(variance) P^T`; both variances are `[B, H, W, 1]`."""
        rows, columns = self.matrices(*variance.shape[1:3])
        return float64_product(rows**2, columns**2, variance)


@gin.register
class DCT(Basis):
    """The orthonormal two-dimensional cosine transform of any H and W (Eq. 9, 13).

    The lowest frequency is at `[:, 0, 0, :]`; lambda is `pi^2 (i^2 / H^2 + j^2 / W^2)` (A.1).

    Args:
        method: "fft" is `tf.signal.dct`, "matmul" a product with the matrix of cosines (see
            `orthonormal_product`), "auto" matmul on TPUs and fft elsewhere: `docs/tpu.md` has the
            figures. In float32 they are equal.

    Raises:
        UserError: there is no such method.
    """

    def __init__(self, method: str = "auto"):
        if method not in ("auto", "fft", "matmul"):
            raise UserError(f"DCT.method={method!r} must be 'auto', 'fft' or 'matmul'")
        on_tpu = bool(tf.config.list_logical_devices("TPU"))
        self._by_matrix = method == "matmul" or (method == "auto" and on_tpu)

    def matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        return _cosines(height), _cosines(width)

    def to_frequency(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `u = V^T x`, the DCT-II of both spatial axes."""
        if self._by_matrix:
            return orthonormal_product(*self.inverse_matrices(*x.shape[1:3]), x)
        return _on_both_axes(lambda a: tf.signal.dct(a, type=2, norm="ortho"), x)

    def to_pixel(self, u: tf.Tensor) -> tf.Tensor:
        """Returns `x = V u`, the inverse of `to_frequency`."""
        if self._by_matrix:
            return orthonormal_product(*self.matrices(*u.shape[1:3]), u)
        return _on_both_axes(lambda a: tf.signal.idct(a, type=2, norm="ortho"), u)


@gin.register
class PixelBasis(Basis):
    """The pixels themselves. All share one frequency, so that blurring scales the whole image.

    Args:
        frequency_squared: lambda of every pixel, at least 0, in radians^2 per pixel^2; None is
            `(pi / max(H, W))^2`, the lowest above 0 that the DCT has.
    """

    def __init__(self, frequency_squared: float | None = None):
        if frequency_squared is not None:
            check_between("PixelBasis.frequency_squared", frequency_squared, 0)
        self._frequency_squared = frequency_squared

    def matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        return np.eye(height), np.eye(width)

    def frequencies(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns half of lambda for each axis, as a frequency."""
        lowest = (np.pi / max(height, width)) ** 2
        squared = lowest if self._frequency_squared is None else self._frequency_squared
        return np.full(height, np.sqrt(squared / 2)), np.full(width, np.sqrt(squared / 2))

    def to_frequency(self, x: tf.Tensor) -> tf.Tensor:
        return x

    def to_pixel(self, u: tf.Tensor) -> tf.Tensor:
        return u


@gin.register
class HaarWavelet(Basis):
    """The orthonormal Haar wavelets, a transform of all levels on one axis and then on the other.

    Along an axis the coarsest averages come first, then the details from coarse to fine.

    Args:
        levels: how often an axis is halved, at least 1; None halves each axis as long as its size
            is even, which leaves an axis of odd size as it is.
    """

    def __init__(self, levels: int | None = None):
        if levels is not None:
            check_counts("HaarWavelet", 1, 32, levels=levels)
        self._levels = levels

    def matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        return self._axis(height)[0].T, self._axis(width)[0].T

    def frequencies(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns `2 pi / 2^l` for details that cover `2^l` pixels, which is one period for each.

        All averages have frequency 0, however many `levels` leaves: they are never blurred.
        """
        return self._axis(height)[1], self._axis(width)[1]

    def _axis(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        deepest = (size & -size).bit_length() - 1  # size's factors of 2
        if self._levels is not None and self._levels > deepest:
            raise UserError(
                f"HaarWavelet.levels={self._levels} needs sides that are multiples of "
                f"{2**self._levels} pixels, not {size}; levels=None halves each as often as it can"
            )
        return _haar(size, deepest if self._levels is None else self._levels)


@gin.register
class Hadamard(Basis):
    """The Walsh-Hadamard transform: orthonormal square waves in the order of their sign changes.

    H and W must be powers of two. A wave of i sign changes has the frequency `pi i / n`.
    """

    def matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        return _walsh(height), _walsh(width)


@gin.register
class MatrixBasis(Basis):
    """A basis given as matrices, invertible but not necessarily orthonormal (Eq. 29).

    Args:
        rows, columns: `P_rows` `[H, H]` and `P_columns` `[W, W]`; basis vectors are their columns.
        path: in place of all other arguments, a `.npz` that holds them under their names.
        row_frequencies: `[H]`, at least 0, in radians per pixel, one for each column of `rows`;
            None is `pi i / H` in the order of the columns, as in the DCT.
        column_frequencies: `[W]`, likewise.
        sha256: of the file at `path`, which training notes in config.gin; None takes any file.

    Raises:
        UserError: arrays are missing, given besides `path`, unreadable, not finite or of the wrong
            shape; the file has another `sha256`; P is singular or so near it that float32 would
            lose its digits.
    """

    def __init__(
        self,
        rows: npt.ArrayLike | None = None,
        columns: npt.ArrayLike | None = None,
        path: str | None = None,
        row_frequencies: npt.ArrayLike | None = None,
        column_frequencies: npt.ArrayLike | None = None,
        sha256: str | None = None,
    ):
        arrays = (rows, columns, row_frequencies, column_frequencies)
        if path is not None:
            check_text("MatrixBasis", path=path)
            if any(array is not None for array in arrays):
                raise UserError(f"MatrixBasis has path={path} and arrays; give one or the other")
            arrays = _read(path := expanded("MatrixBasis.path", path))
            if sha256 not in (None, files.sha256(path)):
                raise UserError(
                    f"MatrixBasis.path={path} is not the file that the run began with: its SHA-256 "
                    f"is not {sha256[:16]}..."
                )
        if arrays[0] is None or arrays[1] is None:
            raise UserError(f"{path or 'MatrixBasis'} lacks rows or columns; give it both")
        self._rows, self._row_frequencies = _checked("row", arrays[0], arrays[2])
        self._columns, self._column_frequencies = _checked("column", arrays[1], arrays[3])
        conditions = np.linalg.cond(self._rows), np.linalg.cond(self._columns)
        if not np.prod(conditions) <= _LARGEST_CONDITION:
            raise UserError(
                "MatrixBasis has a condition number, {:.3g} of rows times {:.3g} of columns, above "
                "{:g}: rounding in float32 would show in the pixels; give basis vectors that are "
                "nearer to orthonormal".format(*conditions, _LARGEST_CONDITION)
            )

    def matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        if (height, width) != (len(self._rows), len(self._columns)):
            raise UserError(
                f"MatrixBasis is for images of {len(self._rows)}x{len(self._columns)} pixels, not "
                f"of {height}x{width}; give rows for {height} and columns for {width} pixels"
            )
        return self._rows, self._columns

    def inverse_matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = self.matrices(height, width)
        return np.linalg.inv(rows), np.linalg.inv(columns)

    def frequencies(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        return self._row_frequencies, self._column_frequencies

    def noise(self, white: tf.Tensor) -> tf.Tensor:
        """Returns `eps = P white`, whose covariance is `P P^T` (Eq. 29)."""
        return self.to_pixel(white)


def _on_both_axes(transform, x: tf.Tensor) -> tf.Tensor:
    """Applies a transform of the last axis to H and W of `[B, H, W, C]`."""
    x = transform(tf.transpose(x, [0, 3, 1, 2]))
    x = transform(tf.transpose(x, [0, 1, 3, 2]))
    return tf.transpose(x, [0, 3, 2, 1])


def _cosines(size: int) -> np.ndarray:
    """The basis vectors of the orthonormal DCT-II, as columns."""
    i, k = np.arange(size)[:, None], np.arange(size)
    return np.cos(np.pi * (i + 0.5) * k / size) * np.sqrt(np.where(k == 0, 1, 2) / size)


def _haar(size: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Haar's analysis matrix, averages first and then details from coarse to fine; frequencies."""
    if levels == 0:
        return np.eye(size), np.zeros(size)
    averages, details = (np.kron(np.eye(size // 2), pair) for pair in ([1, 1], [1, -1]))
    coarser, frequencies = _haar(size // 2, levels - 1)
    matrix = np.vstack([coarser @ averages, details]) / np.sqrt(2)
    return matrix, np.concatenate([frequencies / 2, np.full(size // 2, np.pi)])


def _walsh(size: int) -> np.ndarray:
    """The orthonormal Walsh functions, as columns with 0, 1, 2, ... sign changes."""
    if size.bit_count() != 1:
        raise UserError(
            f"Hadamard needs sides that are powers of two, not {size}; DCT takes images of any size"
        )
    waves: np.ndarray = np.ones([1, 1])
    while len(waves) < size:
        waves = np.kron(waves, [[1, 1], [1, -1]])
    sign_changes = np.count_nonzero(np.diff(waves, axis=0), axis=0)
    return waves[:, np.argsort(sign_changes)] / np.sqrt(size)


def _read(path: str) -> tuple:
    """A file's arrays in the order of `MatrixBasis`, None where it has none."""
    try:
        arrays = files.read_npz(path)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"MatrixBasis.path={path} cannot be read as .npz: {error}") from error
    return tuple(map(arrays.get, ("rows", "columns", "row_frequencies", "column_frequencies")))


def _checked(axis: str, matrix, frequencies) -> tuple[np.ndarray, np.ndarray]:
    """An axis's matrix `[n, n]` and frequencies `[n]`, by default `pi i / n`."""
    matrix = _array(f"{axis}s", matrix, 2)
    if frequencies is None:
        return matrix, np.pi * np.arange(len(matrix)) / len(matrix)
    frequencies = _array(f"{axis}_frequencies", frequencies, 1)
    if len(frequencies) != len(matrix) or (frequencies < 0).any():
        raise UserError(
            f"MatrixBasis.{axis}_frequencies={frequencies} must be {len(matrix)} numbers >= 0"
        )
    return matrix, frequencies


def _array(name: str, value, dimensions: int) -> np.ndarray:
    try:
        array = np.asarray(value).astype(np.float64, casting="same_kind")
    except (TypeError, ValueError) as error:  # complex numbers, text, ragged lists
        raise UserError(f"MatrixBasis.{name} must be an array of real numbers: {error}") from error
    is_finite = array.size and np.isfinite(array).all()
    if array.ndim != dimensions or len(set(array.shape)) != 1 or not is_finite:
        kind = "square matrix" if dimensions == 2 else "vector"
        raise UserError(f"MatrixBasis.{name}, of shape {array.shape}, must be a finite {kind}")
    return array
