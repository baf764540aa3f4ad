"""Wrong arguments of bases: each is named, with its value and the way out."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.diffusion.bases import HaarWavelet, Hadamard, MatrixBasis, PixelBasis
from bdm_tf.diffusion.relay import PatchDCT
from bdm_tf.system.errors import UserError
from tests.diffusion.test_bases import COLUMNS, ROW_FREQUENCIES, ROWS

WRONG = {
    "frequency below 0": (lambda: PixelBasis(-1.0), "frequency_squared=-1.0 must be"),
    "endless frequency": (lambda: PixelBasis(float("nan")), "frequency_squared=nan must be"),
    "no levels": (lambda: HaarWavelet(0), "HaarWavelet.levels=0 must be"),
    "half a level": (lambda: HaarWavelet(1.5), "HaarWavelet.levels=1.5 must be"),
    "too many levels": (
        lambda: HaarWavelet(3).frequencies_squared(8, 4),
        "levels=3 needs .* multiples of 8 pixels, not 4; levels=None",
    ),
    "a part of a patch": (
        lambda: PatchDCT(4).frequencies_squared(8, 6),
        "PatchDCT.size=4 needs sides that are multiples of it, not 8x6",
    ),
    "no power of two": (
        lambda: Hadamard().frequencies_squared(8, 6),
        "powers of two, not 6; DCT takes",
    ),
    "other size": (
        lambda: MatrixBasis(ROWS, COLUMNS).frequencies_squared(4, 8),
        "images of 8x4 pixels, not of 4x8; give",
    ),
    "other image": (
        lambda: MatrixBasis(ROWS, COLUMNS).to_frequency(tf.zeros([1, 8, 8, 1])),
        "images of 8x4 pixels, not of 8x8; give",
    ),
    "nothing": (lambda: MatrixBasis(), "MatrixBasis lacks rows or columns; give it both"),
    "one axis": (lambda: MatrixBasis(ROWS), "MatrixBasis lacks rows or columns; give it both"),
    "not square": (lambda: MatrixBasis(ROWS[:7], COLUMNS), r"rows, of shape \(7, 8\), must be"),
    "no matrix": (lambda: MatrixBasis(ROWS, [1.0, 2.0]), r"columns, of shape \(2,\), must be"),
    "empty": (lambda: MatrixBasis(ROWS, np.ones([0, 0])), r"columns, of shape \(0, 0\), must be"),
    "infinite": (lambda: MatrixBasis(ROWS + np.inf, COLUMNS), "rows, .* must be a finite"),
    "complex": (lambda: MatrixBasis(ROWS * 1j, COLUMNS), "rows must be an array of real numbers"),
    "ragged": (lambda: MatrixBasis([[1, 0], [1]], COLUMNS), "rows must be an array of real"),
    "singular": (lambda: MatrixBasis(np.ones([8, 8]), COLUMNS), "condition number, .* of rows"),
    "ill-conditioned": (
        lambda: MatrixBasis(np.diag([1, 1e-3]), np.diag([1, 0.05])),
        "1e.03 of rows times 20 of columns, above 10000: .* nearer to orthonormal",
    ),
    "frequencies of another size": (
        lambda: MatrixBasis(ROWS, COLUMNS, row_frequencies=[0, 1]),
        r"row_frequencies=\[0. 1.\] must be 8 numbers",
    ),
    "frequencies below 0": (
        lambda: MatrixBasis(ROWS, COLUMNS, column_frequencies=[0, 1, -1, 2]),
        "column_frequencies=.* must be 4 numbers >= 0",
    ),
}


@pytest.mark.parametrize("make, message", WRONG.values(), ids=WRONG)
def test_a_mistake_is_named_with_its_value_and_the_way_out(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_file_with_another_content_than_noted_is_refused(tmp_path):
    path = str(tmp_path / "basis.npz")
    np.savez(path, rows=ROWS, columns=COLUMNS)
    with open(path, "rb") as file:
        noted = hashlib.sha256(file.read()).hexdigest()
    MatrixBasis(path=path, sha256=noted)
    np.savez(path, rows=2 * ROWS, columns=COLUMNS)
    with pytest.raises(UserError, match="basis.npz is not the file that the run began with"):
        MatrixBasis(path=path, sha256=noted)


def test_mistakes_in_files_name_the_file(tmp_path):
    path = tmp_path / "basis.npz"
    with pytest.raises(UserError, match="basis.npz cannot be read as .npz"):
        MatrixBasis(path=str(path))
    path.write_text("rows")
    with pytest.raises(UserError, match="basis.npz cannot be read as .npz"):
        MatrixBasis(path=str(path))
    np.savez(path, rows=ROWS)
    with pytest.raises(UserError, match="basis.npz lacks rows or columns"):
        MatrixBasis(path=str(path))
    np.savez(path, rows=ROWS, columns=COLUMNS)
    with pytest.raises(UserError, match="path=.*basis.npz and arrays; give one or the other"):
        MatrixBasis(path=str(path), row_frequencies=ROW_FREQUENCIES)
