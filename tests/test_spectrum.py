"""The training images' mean and variance per frequency, against NumPy in float64."""

import numpy as np
import pytest

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.diffusion.bases import DCT, HaarWavelet, MatrixBasis, PixelBasis
from bdm_tf.fitted import find_spectrum, keep_spectrum, load_spectrum
from bdm_tf.spectrum import Spectrum, measure_spectrum, read_spectrum, write_spectrum
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import write_npz

SHAPE = (8, 4, 2)
BASES = {
    "DCT": DCT(),
    "Haar": HaarWavelet(),
    "pixels": PixelBasis(),
    "not orthonormal": MatrixBasis(np.eye(8) + 0.3 * np.eye(8, k=1), np.eye(4)),
}


def images(count=700, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def in_batches(of, size=97):
    return lambda: (of[i : i + size] for i in range(0, len(of), size))


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_a_streamed_spectrum_is_that_of_all_images_at_once(basis):
    found = measure_spectrum(in_batches(images()), basis)
    rows, columns = (np.linalg.inv(m) for m in basis.matrices(*SHAPE[:2]))
    u = np.einsum("ih,bhwc,jw->bijc", rows, images() / 127.5 - 1.0, columns)
    np.testing.assert_allclose(found.mean, u.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.variance, u.var(0), rtol=1e-6)


def test_what_never_varies_has_variance_0_and_the_rest_keeps_its_own():
    same = images()
    same[..., 1] = same[0, ..., 1]
    found = measure_spectrum(in_batches(same), DCT())
    assert (found.variance[..., 1] == 0.0).all() and (found.variance[..., 0] > 1e-3).all()
    one_level = np.repeat(images(1), 50_000, 0)
    one_level[7, 3, 3, 0] ^= 1  # the least that a data set can vary
    found = measure_spectrum(in_batches(one_level, 5000), DCT())
    assert (found.variance[..., 0] > 0.0).all() and (found.variance[..., 1] == 0.0).all()


def test_it_is_written_and_read_and_known_by_its_content(tmp_path):
    path, process = str(tmp_path / "spectrum.npz"), BlurringProcess(SHAPE)
    spectrum = measure_spectrum(in_batches(images()), DCT())
    write_spectrum(path, spectrum, DCT())
    again = read_spectrum(path, process)
    np.testing.assert_array_equal(again.mean, spectrum.mean)
    np.testing.assert_array_equal(again.variance, spectrum.variance)
    assert again.sha256() == spectrum.sha256()
    assert measure_spectrum(in_batches(images(seed=1)), DCT()).sha256() != spectrum.sha256()
    with pytest.raises(UserError, match=r"spectrum.npz is of images of shape \(8, 4, 2\).*8, 8, 2"):
        read_spectrum(path, BlurringProcess((8, 8, 2)))
    with pytest.raises(UserError, match="another basis than the model's HaarWavelet"):
        read_spectrum(path, BlurringProcess(SHAPE, basis=HaarWavelet()))
    with open(path, "wb") as file:
        file.write(b"no archive")
    with pytest.raises(UserError, match="spectrum.npz cannot be read.*measures it anew"):
        read_spectrum(path, process)
    write_npz(path, {"mean": spectrum.mean})
    with pytest.raises(UserError, match="it lacks columns, rows, variance; remove it"):
        read_spectrum(path, process)


class Keeper:
    """A model as far as its spectrum goes."""

    def __init__(self):
        self.process, self.spectrum, self.spectrum_sha256 = BlurringProcess(SHAPE), None, None

    def use_spectrum(self, spectrum, name, way_out):
        self.spectrum = spectrum


def test_a_workdir_is_measured_once(tmp_path):
    first, second = Keeper(), Keeper()
    assert load_spectrum(first, str(tmp_path)) is None
    found = find_spectrum(first, str(tmp_path), in_batches(images()))
    assert found is first.spectrum and not list(tmp_path.iterdir())
    keep_spectrum(first, str(tmp_path))
    find_spectrum(second, str(tmp_path), in_batches(images(seed=1)))
    assert second.spectrum.sha256() == first.spectrum.sha256()


@pytest.mark.parametrize(
    "mean, variance, words",
    [
        (np.zeros(SHAPE), np.ones((8, 4, 1)), "one shape"),
        (np.zeros([8, 4]), np.ones([8, 4]), "one shape"),
        (np.zeros(SHAPE), np.full(SHAPE, np.inf), "finite"),
        (np.zeros(SHAPE), -np.ones(SHAPE), "at least 0, not -1"),
    ],
)
def test_arrays_that_are_no_spectrum_are_refused(mean, variance, words):
    with pytest.raises(UserError, match=words):
        Spectrum(mean, variance)


def test_a_model_refuses_the_spectrum_of_other_shapes_and_no_images_have_none():
    spectrum = Spectrum(np.zeros(SHAPE), np.ones(SHAPE))
    with pytest.raises(UserError, match=r"shape \(8, 4, 2\), the model's are of \(4, 4, 2\)"):
        Denoiser(None, BlurringProcess((4, 4, 2)), spectrum=spectrum)
    with pytest.raises(UserError, match="no training images"):
        measure_spectrum(lambda: [], DCT())
