"""Images of any size to one size: Pillow outside, TensorFlow inside the graph."""

import io

import numpy as np
import pytest
from PIL import Image

from bdm_tf.data.resize import checked_size, decode_file, fit, fit_tensor
from bdm_tf.system.errors import UserError


def smooth(height, width, channels):
    """A picture without sharp edges, so that resampling filters agree."""
    i, j = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    planes = [127 + 120 * np.sin(3 * i + (k + 2) * j + k) for k in range(channels)]
    return np.stack(planes, -1).astype(np.uint8)


def as_pillow(array):
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def test_a_wide_image_loses_its_sides_and_keeps_its_middle():
    ramp = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 40, 0)  # 40 x 120
    for fitted in (fit(as_pillow(ramp), (20, 20), 1), fit_tensor(ramp, (20, 20), 1)):
        # 20 x 20 out of the middle 40 x 40, whose columns 40..79 hold 80..158
        np.testing.assert_allclose(np.asarray(fitted)[10, :, 0], np.arange(81, 161, 4), atol=2)


def test_a_tall_image_loses_top_and_bottom():
    ramp = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[:, None, None], 40, 1)
    for fitted in (fit(as_pillow(ramp), (20, 20), 1), fit_tensor(ramp, (20, 20), 1)):
        np.testing.assert_allclose(np.asarray(fitted)[:, 10, 0], np.arange(81, 161, 4), atol=2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "source, target",
    [((40, 120), (20, 20)), ((90, 60), (30, 16)), ((33, 47), (16, 16)), ((9, 12), (18, 20))],
)
def test_both_ways_differ_by_half_a_pixel_at_most(source, target, channels):
    """Pillow crops between pixels, TensorFlow at whole ones."""
    array = smooth(*source, channels)
    outside, inside = fit(as_pillow(array), target, channels), fit_tensor(array, target, channels)
    assert outside.shape == tuple(inside.shape) == (*target, channels)
    assert outside.dtype == inside.numpy().dtype == np.uint8
    steps = [np.abs(np.diff(outside.astype(int), axis=axis)).max() for axis in (0, 1)]
    difference = np.abs(outside.astype(int) - inside.numpy()).max()
    assert difference <= 0.5 * max(steps) + 3


def test_both_ways_average_over_what_they_shrink():
    """Of black and white noise, 64 pixels become one: grey, +-16 for a plain mean, not +-127."""
    noise = np.random.default_rng(0).choice([0, 255], (64, 64, 1)).astype(np.uint8)
    for fitted in (fit(as_pillow(noise), (8, 8), 1), fit_tensor(noise, (8, 8), 1)):
        assert np.std(fitted) < 30


def test_an_image_of_the_right_size_is_left_as_it_is():
    array = np.random.default_rng(0).integers(0, 256, (8, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(fit(Image.fromarray(array), (8, 6), 3), array)
    np.testing.assert_array_equal(fit_tensor(array, (8, 6), 3), array)


@pytest.mark.parametrize("size", [(8, 6), (4, 3)])
def test_grey_becomes_colour_and_colour_becomes_grey(size):
    grey, colour = smooth(8, 6, 1), smooth(8, 6, 3)
    for to_colour in (fit(as_pillow(grey), size, 3), fit_tensor(grey, size, 3).numpy()):
        assert to_colour.shape == (*size, 3)
        np.testing.assert_array_equal(to_colour, np.repeat(to_colour[..., :1], 3, 2))
        np.testing.assert_allclose(to_colour.mean(), grey.mean(), atol=3)
    luma = (colour @ [0.299, 0.587, 0.114]).mean()  # ITU-R 601-2
    for to_grey in (fit(as_pillow(colour), size, 1), fit_tensor(colour, size, 1).numpy()):
        assert to_grey.shape == (*size, 1)
        np.testing.assert_allclose(to_grey.mean(), luma, atol=3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "orientation, target, decoded",
    [(1, (30, 40), (80, 60)), (6, (40, 30), (80, 60)), (8, (30, 40), (160, 120))],
)
def test_of_a_large_jpeg_no_more_is_decoded_than_shows(mode, orientation, target, decoded):
    exif = Image.Exif()
    exif[0x0112] = orientation
    written = io.BytesIO()
    rough = smooth(480, 640, 3) // 2 + np.random.default_rng(0).integers(0, 99, (480, 640, 1))
    picture = Image.fromarray(rough.astype(np.uint8)).convert(mode)
    picture.save(written, "JPEG", quality=95, exif=exif)
    whole, part = Image.open(written), Image.open(io.BytesIO(written.getvalue()))
    whole.load()  # after which it is too late for a part
    difference = fit(part, target, 3).astype(int) - fit(whole, target, 3)
    assert part.size == decoded and whole.size == (640, 480)
    assert np.abs(difference).max() <= 3 and np.abs(difference).mean() < 0.5


@pytest.mark.parametrize("mode", ["I", "I;16"])
def test_16_bits_are_scaled_to_8(mode):
    values = np.array([[0, 255, 256, 0x7FFF, 0xFFFF]])
    image = Image.fromarray(values.astype(np.int32 if mode == "I" else np.uint16))
    assert image.mode == mode
    np.testing.assert_array_equal(fit(image, (1, 5), 1)[0, :, 0], [0, 0, 1, 127, 255])


@pytest.mark.parametrize(
    "floats, expected",
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 1, 200.4], [0, 1, 200]),
        ([0, 0, 0], [0, 0, 0]),
        ([-0.01, 1, 1.0000001], [0, 255, 255]),  # as resizing leaves them
        ([-3, 10, 256], [0, 10, 255]),
    ],
)
def test_floats_are_scaled_from_1_or_are_as_they_are(floats, expected):
    image = Image.fromarray(np.array([floats], np.float32))
    np.testing.assert_array_equal(fit(image, (1, 3), 1)[0, :, 0], expected)


@pytest.mark.parametrize(
    "values, said",
    [
        (np.float32([0, np.nan]), "from nan to nan; floats"),
        (np.float32([0, np.inf]), "from 0 to inf; floats"),
        (np.float32([-1, 1]), "from -1 to 1; floats"),
        (np.float32([0, 1.2]), "from 0 to 1.2; floats"),
        (np.float32([0, 300]), "from 0 to 300; floats"),
        (np.uint16([0, 255]), "from 0 to 255; integers of more than 8 bits"),
        (np.int32([0, 2**20]), "from 0 to 1048576; integers"),
        (np.int32([-1, 9]), "from -1 to 9; integers"),
    ],
)
def test_values_of_no_known_range_are_no_image(tmp_path, values, said):
    path = tmp_path / "a.tif"
    Image.fromarray(values[None]).save(path)
    with pytest.raises(ValueError, match=f"{path} is not a readable image: its values go {said}"):
        decode_file(str(path), (1, 2), 1)


def test_a_size_is_one_number_or_two():
    assert checked_size(8) == (8, 8)
    assert checked_size((8, 6)) == checked_size([8, 6]) == (8, 6)
    assert checked_size(None) is None


@pytest.mark.parametrize("size", [0, -1, (8,), (8, 0), (8, 8, 3), "8", "88", 8.0, (8.0, 8)])
def test_another_size_is_refused_by_its_value(size):
    with pytest.raises(UserError) as refused:
        checked_size(size)
    assert f"image_size={size!r}" in str(refused.value)


def test_a_pointer_of_git_lfs_is_told_as_one(tmp_path):
    path = tmp_path / "1.png"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="1.png is a pointer of Git LFS, .* `git lfs pull`"):
        decode_file(str(path), None, None)
