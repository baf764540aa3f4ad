"""Folders of images: layouts, damaged files, what is refused."""

import inspect
import logging
import os
import struct
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, PngImagePlugin, features

from bdm_tf.data import FileImages, ImageFolder, TFDSImages, training_dataset
from bdm_tf.data.folder import image_files
from bdm_tf.system.errors import UserError
from tests.data.folders import both, fill, in_memory, save, streamed, values


@both
def test_every_image_below_a_flat_or_nested_folder_is_training_data(tmp_path, source):
    fill(tmp_path, [10, 20])
    fill(tmp_path / "some" / "where", [30])
    fill(tmp_path / "test", [40])  # a split only beside train/
    images, evaluation = source().load(str(tmp_path))
    assert sorted(values(images)) == [10, 20, 30, 40]
    assert images.num_images == 4 and images.image_shape == (4, 4, 3)
    assert evaluation is None


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "pictures", [10])
    assert values(in_memory().load("~/pictures")[0]) == [10]


@both
def test_a_folder_that_cannot_be_used_is_refused_in_words(tmp_path, source):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=f"{tmp_path} holds no images .*png"):
        source().load(str(tmp_path))
    with pytest.raises(UserError, match="nowhere is not a folder"):
        source().load(str(tmp_path / "nowhere"))
    for nothing in (None, ""):
        with pytest.raises(UserError, match="--data_dir=FOLDER"):
            source().load(nothing)


def test_arguments_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="channels='3'"):
        ImageFolder(8, channels="3")
    with pytest.raises(UserError, match="image_size must be given"):
        ImageFolder(None)
    with pytest.raises(UserError, match="max_memory_gb=inf must be a number at least 0 and finite"):
        ImageFolder(8, max_memory_gb=float("inf"))
    with pytest.raises(UserError, match="image_size=0"):
        ImageFolder(0)


@both
@pytest.mark.parametrize("suffix", ["png", "jpeg", "gif", "bmp", "webp"])
def test_a_damaged_file_is_named(tmp_path, source, suffix):
    good, bad = (
        save(tmp_path / f"a.{suffix}", 10, suffix),
        save(tmp_path / f"b.{suffix}", 20, suffix),
    )
    content = bad.read_bytes()
    for broken in (content[: len(content) // 2], content[:5], b"", b"no image"):
        bad.write_bytes(broken)
        with pytest.raises(UserError) as refused:
            source().load(str(tmp_path))[0].eval_images(2)
        message = str(refused.value)
        assert f"{bad} is not a readable image" in message and str(good) not in message
        assert "--on_corrupt_image=skip" in message


def test_a_link_to_nowhere_is_named(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="a.png cannot be opened"):
        in_memory().load(str(tmp_path))


def test_damaged_files_are_left_out_if_asked_and_the_first_are_named(tmp_path, caplog):
    folder = fill(tmp_path, range(10), damaged=range(1, 9))
    with caplog.at_level(logging.WARNING, "absl"):
        images, _ = in_memory().load(folder, on_corrupt_image="skip")
    assert values(images) == [0, 9] and images.num_images == 2
    *named, last = [record.getMessage() for record in caplog.records]
    assert (
        [f"{i:02d}.png" in named[i - 1] for i in range(1, 6)] == [True] * 5 == [True] * len(named)
    )
    assert last == "skipped: 3 more such files"


def test_a_streamed_damaged_file_is_replaced_by_the_next_and_named_once(tmp_path, caplog):
    folder = fill(tmp_path, [10, 20, 30, 40], damaged=[1, 3])
    images, _ = streamed().load(folder, on_corrupt_image="skip")
    with caplog.at_level(logging.WARNING, "absl"):
        assert values(images) == [10, 30, 30, 10]
        assert values(images) == [10, 30, 30, 10]
        dataset = images.train_batches(batch_size=4, seed=0, first_step=0)
        (batch,) = dataset.take(1).as_numpy_iterator()
    assert sorted(batch[:, 0, 0, 0]) == [10, 10, 30, 30]
    warned = [record.getMessage() for record in caplog.records]
    assert ["01.png" in warned[0], "03.png" in warned[1], len(warned)] == [True, True, 2]


def test_of_many_streamed_damaged_files_a_few_are_named(tmp_path, caplog):
    folder = fill(tmp_path, range(201), damaged={*range(201)} - {99})
    images, _ = streamed().load(folder, on_corrupt_image="skip")
    assert values(images, 1) == [99]  # the last by name
    warned = [record.getMessage() for record in caplog.records]
    assert "04.png" in warned[4]
    assert warned[5:] == [f"skipped: {n} such files so far, not all named" for n in (6, 100, 200)]


@both
def test_nothing_but_damaged_files_is_an_error_even_if_they_may_be_skipped(tmp_path, source):
    folder = fill(tmp_path, [10, 20], damaged=[0, 1])
    with pytest.raises(UserError, match="none of the 2 files"):
        source().load(folder, on_corrupt_image="skip")[0].eval_images(2)


def test_streamed_images_are_those_held_in_memory(tmp_path):
    folder = fill(tmp_path, range(0, 200, 20))
    held, files = in_memory().load(folder)[0], streamed().load(folder)[0]
    assert isinstance(files, FileImages) and not isinstance(held, FileImages)
    np.testing.assert_array_equal(held.eval_images(5), files.eval_images(5))
    options = {"batch_size": 4, "seed": 1, "first_step": 2, "flip": True}
    for a, b in zip(
        training_dataset(held, **options).take(4), training_dataset(files, **options).take(4)
    ):
        np.testing.assert_array_equal(a["image"], b["image"])


def test_a_damaged_file_met_in_training_is_the_failure_of_the_images(tmp_path):
    images, _ = streamed().load(fill(tmp_path, [10, 20, 30], damaged=[1]))
    dataset = training_dataset(images, batch_size=3, seed=0, first_step=0, flip=False)
    with pytest.raises(tf.errors.OpError, match="01.png is not a readable image") as raised:
        next(iter(dataset))
    failure = images.failure_by(raised.value)
    assert isinstance(failure, UserError) and str(tmp_path / "01.png") in str(failure)
    assert "--on_corrupt_image=skip" in str(failure)


def test_what_is_no_image_of_the_users_is_left_out_and_said(tmp_path, capsys):
    fill(tmp_path, [10, 20])
    fill(tmp_path / ".ipynb_checkpoints", [30])
    fill(tmp_path / "runs" / "one" / "samples", [40])
    (tmp_path / "runs" / "one" / "config.gin").write_text("")
    (tmp_path / "runs" / "one" / "checkpoints").mkdir()
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "film.MOV").write_text("")
    (tmp_path / "parent").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
    (tmp_path / "device.png").symlink_to("/dev/zero")
    images, _ = in_memory().load(str(tmp_path))
    assert values(images) == [10, 20]
    said = capsys.readouterr().out
    assert "2 images; left out: 1 .mov, 1 .txt, 1 hidden, 1 linked folder(s)" in said
    assert "2 pipe(s), socket(s) or device(s), 1 run(s) of this library" in said


READ = ["tif", "jfif", "ppm", "tga", "jp2", *(["avif"] if features.check("avif") else [])]


@pytest.mark.parametrize("ending", READ)
def test_formats_that_photographs_come_in_are_read(tmp_path, ending):
    Image.new("RGB", (9, 7), (50, 50, 50)).save(tmp_path / f"one.{ending}")
    images, _ = in_memory().load(str(tmp_path))
    assert abs(values(images)[0] - 50) <= 1


SHORT, TEXT = 3, 2
MISTYPED = {  # EXIF entries, (tag, type, value): orientation, resolution and its unit
    "resolution": [(0x0112, SHORT, b"\6\0\0\0"), (0x011A, TEXT, b"72\0\0")],
    "unit": [(0x0112, SHORT, b"\6\0\0\0"), (0x0128, TEXT, b"2\0\0\0")],
    "orientation": [(0x0112, TEXT, b"6\0\0\0")],
}


@pytest.mark.parametrize("case", MISTYPED)
def test_a_mistyped_tag_is_no_reason_to_lose_a_photograph(tmp_path, case):
    entries = [struct.pack("<HHI4s", tag, kind, 1, v) for tag, kind, v in MISTYPED[case]]
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries)
    photograph = Image.new("RGB", (48, 32), "black")
    photograph.paste("white", (0, 0, 48, 16))  # above
    photograph.save(tmp_path / "turned.jpg", exif=exif + b"\0\0\0\0")
    images, _ = in_memory().load(str(tmp_path))
    pixels = images.eval_images(1)[0, :, :, 0]
    if case != "orientation":
        pixels = pixels.T[::-1]  # turned, white is on the right
    assert pixels[0].min() > pixels[-1].max()


def test_much_text_and_large_profiles_are_read(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("notes", "x" * 2**21, zip=True)
    image = Image.new("RGB", (8, 8), (50, 50, 50))
    image.save(tmp_path / "text.png", pnginfo=text)
    image.save(tmp_path / "profile.png", icc_profile=np.random.default_rng(0).bytes(2**22))
    assert values(in_memory().load(str(tmp_path))[0]) == [50, 50]


@both
def test_the_limit_on_pixels_can_be_raised(tmp_path, source):
    Image.new("RGB", (1200, 1000), (50, 50, 50)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match=r"has 1.2 megapixels, more than .*max_megapixels=1: raise"):
        source(max_megapixels=1).load(str(tmp_path))[0].eval_images(1)
    assert values(source(max_megapixels=2).load(str(tmp_path))[0]) == [50]


def test_a_name_that_is_not_utf_8_is_told(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.png", "w"):
        pass
    with pytest.raises(UserError, match=f"{tmp_path} holds a name that is not UTF-8"):
        in_memory().load(str(tmp_path))


def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch):
    fill(tmp_path, [10, 20])

    def fails(*_):
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr("bdm_tf.data.resize.fit", fails)
    with pytest.raises(UserError, match=r"00.png is not a readable image: unpack requires"):
        in_memory().load(str(tmp_path))


def test_folders_in_folders_in_folders_end_with_no_recursion(tmp_path):
    deepest = tmp_path
    for _ in range(200):
        deepest = deepest / "d"
        deepest.mkdir()
    save(deepest / "a.png", 10)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        paths, _ = image_files(str(tmp_path))
    finally:
        sys.setrecursionlimit(limit)
    assert paths == [str(deepest / "a.png")]


@pytest.mark.parametrize("data", [ImageFolder(4), TFDSImages("digits")])
def test_what_to_do_about_a_damaged_image_is_one_of_two_words(data, tmp_path):
    with pytest.raises(UserError, match="on_corrupt_image='Skip' must be stop or skip"):
        data.load(str(tmp_path), on_corrupt_image="Skip")
