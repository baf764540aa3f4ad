"""Every basis against matrices, formulas and SciPy in float64."""

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import tensorflow as tf

from bdm_tf.diffusion import bases
from bdm_tf.diffusion.bases import DCT, HaarWavelet, Hadamard, MatrixBasis, PixelBasis
from bdm_tf.diffusion.relay import PatchDCT
from tests import oracle

HEIGHT, WIDTH = 8, 4


def haar_of(x, levels):
    """Averages and differences of neighbours along the first axis, by sqrt 2, `levels` times."""
    if levels == 0:
        return x
    averages, details = (x[::2] + x[1::2]) / 2**0.5, (x[::2] - x[1::2]) / 2**0.5
    return np.concatenate([haar_of(averages, levels - 1), details])


def walsh(n):
    matrix = scipy.linalg.hadamard(n) / np.sqrt(n)
    return np.stack(sorted(matrix, key=lambda wave: (np.diff(wave) != 0).sum()), axis=1)


def skewed(n, seed=0):
    """An invertible matrix far from orthonormal, but far from singular too."""
    left, right = (np.linalg.qr(a)[0] for a in np.random.default_rng(seed).normal(size=(2, n, n)))
    return left @ np.diag(np.linspace(0.5, 2.0, n)) @ right


def evenly(n):
    return np.pi * np.arange(n) / n


class Case:
    """A basis for 8x4 images and what it must be: P, its frequencies, whether it is orthonormal."""

    def __init__(self, basis, rows, columns, frequencies, orthonormal=True):
        self.basis, self.rows, self.columns, self.orthonormal = basis, rows, columns, orthonormal
        f_rows, f_columns = (np.asarray(f, np.float64) for f in frequencies)
        self.frequencies_squared = (f_rows[:, None] ** 2 + f_columns**2)[..., None]
        self.p = np.kron(rows, columns)  # of pixels h W + w
        self.inverse = np.linalg.inv(self.p)


ROWS, COLUMNS = skewed(HEIGHT), skewed(WIDTH, 1)
ROW_FREQUENCIES, COLUMN_FREQUENCIES = np.linspace(0, 3, HEIGHT) ** 2, [0.0, 0.1, 0.2, 2.0]
CASES = {
    "DCT": Case(
        DCT(),
        oracle.dct_matrix(HEIGHT).T,
        oracle.dct_matrix(WIDTH).T,
        (evenly(HEIGHT), evenly(WIDTH)),
    ),
    "PixelBasis": Case(
        PixelBasis(), np.eye(HEIGHT), np.eye(WIDTH), (np.full(HEIGHT, np.pi / 8), np.zeros(WIDTH))
    ),
    "PixelBasis(0.5)": Case(
        PixelBasis(0.5), np.eye(HEIGHT), np.eye(WIDTH), (np.full(HEIGHT, 0.5**0.5), np.zeros(WIDTH))
    ),
    "HaarWavelet": Case(
        HaarWavelet(),
        haar_of(np.eye(HEIGHT), 3).T,
        haar_of(np.eye(WIDTH), 2).T,
        (np.pi / np.array([np.inf, 4, 2, 2, 1, 1, 1, 1]), np.pi / np.array([np.inf, 2, 1, 1])),
    ),
    "HaarWavelet(1)": Case(
        HaarWavelet(levels=1),
        haar_of(np.eye(HEIGHT), 1).T,
        haar_of(np.eye(WIDTH), 1).T,
        (np.repeat([0, np.pi], HEIGHT // 2), np.repeat([0, np.pi], WIDTH // 2)),
    ),
    "PatchDCT": Case(
        PatchDCT(4),
        scipy.linalg.block_diag(*[oracle.dct_matrix(4).T] * 2),
        oracle.dct_matrix(4).T,
        (np.tile(evenly(4), 2), evenly(4)),
    ),
    "Hadamard": Case(Hadamard(), walsh(HEIGHT), walsh(WIDTH), (evenly(HEIGHT), evenly(WIDTH))),
    "MatrixBasis": Case(
        MatrixBasis(ROWS, COLUMNS), ROWS, COLUMNS, (evenly(HEIGHT), evenly(WIDTH)), False
    ),
    "MatrixBasis(frequencies)": Case(
        MatrixBasis(
            ROWS,
            COLUMNS,
            row_frequencies=ROW_FREQUENCIES,
            column_frequencies=COLUMN_FREQUENCIES,
        ),
        ROWS,
        COLUMNS,
        (ROW_FREQUENCIES, COLUMN_FREQUENCIES),
        False,
    ),
}
ORTHONORMAL = [name for name, case in CASES.items() if case.orthonormal]
every_basis = pytest.mark.parametrize("name", CASES)


def dense(matrix, images):
    """A matrix of the pixels times every channel of `[B, H, W, C]`, in float64."""
    flat = np.asarray(images, np.float64).reshape(len(images), HEIGHT * WIDTH, -1)
    return (matrix @ flat).reshape(np.shape(images))


def images(n=2, channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, HEIGHT, WIDTH, channels)).astype(np.float32)


def test_every_concrete_basis_is_among_the_cases():
    ours = {c for c in bases.Basis.__subclasses__() if c.__module__.startswith("bdm_tf.")}
    assert ours == {type(case.basis) for case in CASES.values()}


@every_basis
def test_matrices_are_those_of_the_definition(name):
    case = CASES[name]
    matrices = case.basis.matrices(HEIGHT, WIDTH)
    inverses = case.basis.inverse_matrices(HEIGHT, WIDTH)
    for found, inverse, expected in zip(matrices, inverses, (case.rows, case.columns)):
        assert found.dtype == inverse.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=1e-12)
        np.testing.assert_allclose(found @ inverse, np.eye(len(found)), atol=1e-12)
        is_orthonormal = np.allclose(found.T @ found, np.eye(len(found)), atol=1e-12)
        assert is_orthonormal == case.orthonormal


@every_basis
def test_transforms_are_the_dense_matrices_and_invert_each_other(name):
    case, x = CASES[name], images()
    u, pixels = (f(tf.constant(x)) for f in (case.basis.to_frequency, case.basis.to_pixel))
    assert u.dtype == pixels.dtype == tf.float32
    np.testing.assert_allclose(u, dense(case.inverse, x), atol=1e-5)
    np.testing.assert_allclose(pixels, dense(case.p, x), atol=1e-5)
    np.testing.assert_allclose(case.basis.to_pixel(u), x, atol=1e-5)
    np.testing.assert_allclose(case.basis.to_frequency(pixels), x, atol=1e-5)
    if case.orthonormal:
        np.testing.assert_allclose(np.sum(u.numpy() ** 2), np.sum(x**2), rtol=1e-5)  # Parseval


@every_basis
def test_gradients_pass_through_the_transforms(name):
    case, x, weights = CASES[name], tf.constant(images()), images(seed=1)
    for transform, matrix in (
        (case.basis.to_frequency, case.inverse),
        (case.basis.to_pixel, case.p),
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(weights * transform(x))
        np.testing.assert_allclose(tape.gradient(y, x), dense(matrix.T, weights), atol=1e-5)


@every_basis
def test_frequencies_are_those_of_the_definition_and_the_lowest_comes_first(name):
    case = CASES[name]
    found = case.basis.frequencies_squared(HEIGHT, WIDTH)
    assert found.dtype == tf.float32 and found.shape == (HEIGHT, WIDTH, 1)
    np.testing.assert_allclose(found, case.frequencies_squared, rtol=1e-6)
    assert (found.numpy() >= 0).all()
    rises = all((np.diff(found, axis=axis) >= 0).all() for axis in (0, 1))
    assert rises or name == "PatchDCT"  # which begins anew with each patch


@every_basis
def test_noise_has_standard_normal_coefficients(name):
    case, white = CASES[name], images()
    eps = case.basis.noise(tf.constant(white))
    if case.orthonormal:
        np.testing.assert_array_equal(eps, white)
    else:
        np.testing.assert_allclose(eps, dense(case.p, white), atol=1e-5)
        np.testing.assert_allclose(case.basis.to_frequency(eps), white, atol=1e-5)


@every_basis
def test_pixel_variance_is_the_diagonal_of_the_covariance(name):
    case, variance = CASES[name], images(channels=1) ** 2
    found = case.basis.pixel_variance(tf.constant(variance))
    assert found.dtype == tf.float32 and found.shape == variance.shape
    for image, of_coefficients in zip(found, variance):
        covariance = case.p @ np.diag(of_coefficients.astype(np.float64).ravel()) @ case.p.T
        np.testing.assert_allclose(np.ravel(image), np.diag(covariance), rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (3, 6, 10, 4), (1, 32, 16, 3)])
def test_dct_is_the_orthonormal_transform_and_inverts(shape):
    x = np.random.default_rng(0).normal(size=shape)
    u = DCT().to_frequency(tf.constant(x, tf.float32)).numpy()
    np.testing.assert_allclose(u, oracle.to_frequency(x), atol=2e-5)
    np.testing.assert_allclose(u, scipy.fft.dctn(x, axes=(1, 2), norm="ortho"), atol=2e-5)
    np.testing.assert_allclose(np.sum(u**2), np.sum(x**2), rtol=1e-5)
    np.testing.assert_allclose(DCT().to_pixel(tf.constant(u)), x, atol=2e-5)


def test_dct_frequencies_follow_height_and_width():
    found = DCT().frequencies_squared(4, 6).numpy()
    i, j = np.meshgrid(np.arange(4), np.arange(6), indexing="ij")
    expected = np.pi**2 * (i**2 / 16 + j**2 / 36)
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-6)


def test_pixels_share_the_lowest_frequency_of_the_dct_by_default():
    lowest = np.unique(DCT().frequencies_squared(6, 10))[1]
    np.testing.assert_allclose(PixelBasis().frequencies_squared(6, 10), lowest, rtol=1e-6)


@pytest.mark.parametrize(
    "height, width, levels", [(8, 4, None), (12, 6, None), (5, 2, None), (16, 24, 2)]
)
def test_haar_averages_and_differences_neighbours(height, width, levels):
    x = np.random.default_rng(0).normal(size=(height, width))
    depths = {2: 1, 4: 2, 5: 0, 6: 1, 8: 3, 12: 2}  # how often a size halves
    expected = x
    for size in (height, width):
        expected = haar_of(expected, levels or depths[size]).T
    found = HaarWavelet(levels).to_frequency(tf.constant(x[None, ..., None], tf.float32))
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-5)


def test_haar_leaves_as_many_averages_unblurred_as_levels_say():
    frequencies = HaarWavelet(levels=2).frequencies_squared(12, 8).numpy()
    assert (frequencies[:3, :2] == 0).all() and np.count_nonzero(frequencies == 0) == 6


@pytest.mark.parametrize("n", [1, 2, 16, 64])
def test_hadamard_counts_sign_changes(n):
    waves, _ = Hadamard().matrices(n, 1)
    assert [(np.diff(wave) != 0).sum() for wave in waves.T] == list(range(n))
    np.testing.assert_allclose(waves, walsh(n))


@pytest.mark.parametrize("with_frequencies", [False, True])
def test_matrices_in_a_file_are_those_given_as_arrays(tmp_path, with_frequencies):
    arrays = {"rows": ROWS, "columns": COLUMNS}
    if with_frequencies:
        arrays["row_frequencies"] = ROW_FREQUENCIES
        arrays["column_frequencies"] = COLUMN_FREQUENCIES
    path = str(tmp_path / "basis.npz")
    np.savez(path, **arrays)
    read, given = MatrixBasis(path=path), MatrixBasis(**arrays)
    for found, expected in zip(read.matrices(HEIGHT, WIDTH), given.matrices(HEIGHT, WIDTH)):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        read.frequencies_squared(HEIGHT, WIDTH), given.frequencies_squared(HEIGHT, WIDTH)
    )


def test_a_condition_number_at_its_limit_still_leaves_three_digits():
    left, right = (np.linalg.qr(skewed(HEIGHT, seed))[0] for seed in (2, 3))
    basis = MatrixBasis(left @ np.diag(np.geomspace(1, 1.01e-4, HEIGHT)) @ right, np.eye(WIDTH))
    x = images()
    again = basis.to_pixel(basis.to_frequency(tf.constant(x)))
    np.testing.assert_allclose(again, x, atol=1e-3)
