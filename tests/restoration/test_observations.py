"""What a blur and a smaller copy show of an image, against NumPy's own transform."""

import numpy as np
import pytest

from bdm_tf.restoration.observations import ROUNDING, blurred, shrunk
from bdm_tf.system.errors import UserError
from tests import oracle
from tests.sampling.models import blurred as heated

SHAPE = (6, 8, 2)
IMAGES = np.random.default_rng(2).integers(60, 196, (5, *SHAPE)).astype(np.uint8)
X = IMAGES / 127.5 - 1.0
U = oracle.to_frequency(X)


def rounded(x):
    return np.rint((x + 1) * 127.5).astype(np.uint8)


def test_a_blur_is_that_of_the_process():
    square = IMAGES[:, :, :6]
    seen = blurred((6, 6, 2), 1.3).observe(square, seed=0)
    np.testing.assert_array_equal(seen, rounded(heated(square / 127.5 - 1.0, 1.3)))


@pytest.mark.parametrize("seen_of", [blurred(SHAPE, 0.8, 0.05), shrunk(SHAPE, 2, 0.05)])
def test_what_is_known_is_the_image_within_its_error(seen_of):
    values, variance = seen_of.known(seen_of.observe(IMAGES, seed=3))
    seen = np.isfinite(variance)
    height, width = seen_of.size
    assert seen[:, :height, :width].all() and seen.sum() == 5 * height * width * 2
    away = ((values - U) / np.sqrt(variance))[seen]
    assert abs(away.std() - 1) < 5 / np.sqrt(2 * away.size)
    assert (values[~seen] == 0).all()


def test_a_smaller_copy_keeps_the_brightness_and_the_low_coefficients():
    small = shrunk(SHAPE, 2)
    seen = small.observe(IMAGES, seed=0)
    assert seen.shape == (5, 3, 4, 2)
    np.testing.assert_allclose(seen.mean((1, 2)), IMAGES.mean((1, 2)), atol=0.5)
    values, variance = small.known(seen)
    np.testing.assert_allclose(values[:, :3, :4], U[:, :3, :4], atol=8 * ROUNDING)
    np.testing.assert_allclose(variance[:, :3, :4], (2 * ROUNDING) ** 2, rtol=1e-6)
    # With all that is known and no more, the picture is that of the low coefficients.
    low = np.zeros_like(U)
    low[:, :3, :4] = U[:, :3, :4]
    expected = np.clip((oracle.to_pixel(low) + 1) * 127.5, 0, 255)
    np.testing.assert_allclose(small.known_part(seen), expected, atol=2)


@pytest.mark.parametrize("wrong", [X, np.float32(IMAGES), IMAGES[0], IMAGES[..., :1], [[1]]])
def test_images_of_another_kind_or_shape_are_refused(wrong):
    blur = blurred(SHAPE, 1.5)
    with pytest.raises(UserError, match="images are .*, must be uint8 of shape"):
        blur.observe(wrong, seed=0)
    with pytest.raises(UserError, match="observed are .*, must be uint8 of shape"):
        blur.known(wrong)
    with pytest.raises(UserError, match="seed=-1 must be a whole number"):
        blur.observe(IMAGES, seed=-1)


def test_what_a_strong_blur_took_is_unknown():
    values, variance = blurred(SHAPE, 40.0).known(IMAGES)
    assert np.isfinite(values).all() and np.isinf(variance[:, 1:]).all()
    np.testing.assert_allclose(variance[:, 0, 0], ROUNDING**2, rtol=1e-6)


def test_noise_is_of_the_seed_and_the_images_number():
    seen_of = blurred(SHAPE, 1.0, 0.1)
    whole = seen_of.observe(IMAGES, seed=3)
    np.testing.assert_array_equal(whole[:2], seen_of.observe(IMAGES[:2], seed=3))
    assert (whole != seen_of.observe(IMAGES, seed=4)).any()
    noise = (whole[0] - blurred(SHAPE, 1.0).observe(IMAGES, 0)[0].astype(int)) / 127.5
    assert abs(noise.std() / 0.1 - 1) < 5 / np.sqrt(2 * noise.size)
