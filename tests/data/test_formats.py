"""Every kind of file in a folder becomes the same kind of image."""

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from bdm_tf.data import ImageFolder
from bdm_tf.data.resize import decode_file

GREY = np.random.default_rng(0).integers(0, 256, (6, 4)).astype(np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 4, 3)).astype(np.uint8)


def read(folder, channels=3, size=(6, 4)):
    images, _ = ImageFolder(size, channels=channels).load(str(folder))
    assert images.num_images == 1
    return images.eval_images(1)[0]


def read_saved(image, folder, name="a.png", channels=3, **options):
    image.save(folder / name, **options)
    return read(folder, channels)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "PNG", "Bmp"])
def test_lossless_colour_is_read_as_it_is(tmp_path, suffix):
    drawn = read_saved(Image.fromarray(COLOUR), tmp_path, f"a.{suffix}", lossless=True)
    np.testing.assert_array_equal(drawn, COLOUR)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "GIF"])
def test_grey_is_read_as_it_is(tmp_path, suffix):
    drawn = read_saved(Image.fromarray(GREY), tmp_path, f"a.{suffix}", channels=1)
    np.testing.assert_array_equal(drawn[..., 0], GREY)
    np.testing.assert_array_equal(read(tmp_path), np.repeat(GREY[..., None], 3, 2))


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.JPG"])
def test_a_jpeg_is_what_pillow_reads(tmp_path, name):
    drawn = read_saved(Image.fromarray(COLOUR), tmp_path, name)
    with Image.open(tmp_path / name) as image:
        np.testing.assert_array_equal(drawn, np.asarray(image))


def test_a_palette_is_looked_up(tmp_path):
    palette = Image.fromarray(COLOUR).quantize(256)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(read_saved(palette, tmp_path), expected)


def test_what_is_transparent_is_white(tmp_path):
    alpha = np.full((6, 4, 1), 255, np.uint8)
    alpha[:2], alpha[2] = 0, 51
    layers = np.concatenate([COLOUR, alpha], 2)
    drawn = read_saved(Image.fromarray(layers), tmp_path).astype(float)
    np.testing.assert_array_equal(drawn[:2], 255)
    np.testing.assert_allclose(drawn[2], 0.2 * COLOUR[2] + 0.8 * 255, atol=1)
    np.testing.assert_array_equal(drawn[3:], COLOUR[3:])


def test_a_transparent_palette_entry_is_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read(tmp_path, size=(1, 2))[0], [[255] * 3, [40, 50, 60]])


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path):
    deep = GREY.astype(np.uint16) * 256 + 77
    drawn = read_saved(Image.fromarray(deep), tmp_path, channels=1)
    np.testing.assert_array_equal(drawn[..., 0], GREY)


def test_a_cmyk_jpeg_has_its_colours(tmp_path):
    red = Image.new("CMYK", (4, 6), (0, 255, 255, 0))
    drawn = read_saved(red, tmp_path, "a.jpg", quality=100)
    np.testing.assert_allclose(drawn, np.broadcast_to([255, 0, 0], (6, 4, 3)), atol=6)


def test_a_lab_tiff_has_its_colours_and_its_greys(tmp_path):
    image = Image.merge("LAB", [Image.fromarray(GREY), *[Image.new("L", (4, 6), 128)] * 2])
    colours = read_saved(image, tmp_path, "a.tif")
    np.testing.assert_array_equal(colours, np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(
        read(tmp_path, 1), np.asarray(Image.fromarray(colours).convert("L"))[..., None]
    )


# What the orientation tag says of the stored array, so that `turn(stored)` is upright.
TURNS = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_the_camera_s_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=exif)
    expected = TURNS[orientation](COLOUR)
    np.testing.assert_array_equal(read(tmp_path, size=expected.shape[:2]), expected)


def test_a_target_need_not_be_square(tmp_path):
    Image.fromarray(np.repeat(COLOUR, 8, 0)).save(tmp_path / "a.png")
    assert read(tmp_path, size=(12, 2)).shape == (12, 2, 3)


def test_text_in_a_file_is_no_matter(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 5000, zip=True)
    drawn = read_saved(Image.fromarray(COLOUR), tmp_path, pnginfo=text)
    np.testing.assert_array_equal(drawn, COLOUR)


def test_other_files_are_passed_over(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "a.png.json").write_text("{}")
    drawn = read_saved(Image.fromarray(COLOUR), tmp_path)
    np.testing.assert_array_equal(drawn, COLOUR)


def test_of_several_pages_the_first_is_taken_with_a_warning(tmp_path, caplog):
    pages = [Image.new("L", (4, 4), value) for value in (10, 20)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    assert decode_file(str(tmp_path / "scan.tif"), None, None).max() == 10
    assert "scan.tif and others: the first page alone" in caplog.text
