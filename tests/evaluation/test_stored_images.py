"""Images to score as people have them."""

import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from bdm_tf.evaluation.stored_images import StoredImages
from bdm_tf.system.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1)).astype(np.uint8)
OTHER_NAMES = ("archive.npy", "ARRAY.NPY")  # the content says what it is


def drawn(path):
    """The images in the file's order; they are drawn in another."""
    images = StoredImages(str(path)).draw(30, 0, 0)(0)
    return images[np.argsort(np.random.default_rng(0).permutation(len(images)))]


def test_the_usual_files_are_taken(tmp_path):
    np.savez(tmp_path / "images.npz", images=IMAGES, labels=np.arange(30))
    np.savez(tmp_path / "first.npz", IMAGES, np.arange(30))
    np.savez(tmp_path / "only.npz", samples=IMAGES)
    restored = IMAGES.reshape(10, 3, 8, 8, 1)  # three samples of each image
    np.savez(tmp_path / "restored.npz", samples=restored, input=IMAGES[:10], known=IMAGES[:10])
    np.save(tmp_path / "array.npy", IMAGES)
    np.save(tmp_path / "grey.npy", IMAGES[..., 0])
    shutil.copy(tmp_path / "only.npz", tmp_path / "archive.npy")
    shutil.copy(tmp_path / "array.npy", tmp_path / "ARRAY.NPY")
    names = "images.npz first.npz only.npz restored.npz array.npy grey.npy"
    for name in (*names.split(), *OTHER_NAMES):
        np.testing.assert_array_equal(drawn(tmp_path / name), IMAGES, err_msg=name)


def test_a_folder_of_images_is_taken(tmp_path):
    (tmp_path / "of" / "0").mkdir(parents=True)
    for i, image in enumerate(IMAGES):
        Image.fromarray(image[..., 0]).save(tmp_path / "of" / f"{i:02d}.png")
    np.testing.assert_array_equal(drawn(tmp_path / "of"), IMAGES)
    for name, other in (("0/z.png", IMAGES[0].repeat(3, 2)), ("00.png", IMAGES[0, :4, :, 0])):
        Image.fromarray(other).save(tmp_path / "of" / name)
        with pytest.raises(UserError, match="has the shape .* all must have the same"):
            drawn(tmp_path / "of")
        (tmp_path / "of" / name).unlink()
    (tmp_path / "of" / "30.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="30.png is not a readable image"):
        drawn(tmp_path / "of")
    with pytest.raises(UserError, match="is a folder without images"):
        drawn(tmp_path / "of" / "0")


def test_a_cut_array_is_named(tmp_path):
    np.save(tmp_path / "array.npy", IMAGES)
    whole = (tmp_path / "array.npy").read_bytes()
    for length in (0, 5, 1000):
        (tmp_path / "array.npy").write_bytes(whole[:length])
        with pytest.raises(UserError, match="array.npy cannot be read"):
            drawn(tmp_path / "array.npy")


def test_what_is_no_array_of_images_gets_a_clear_message(tmp_path):
    np.save(tmp_path / "none.npy", np.zeros((4, 0, 8, 1), np.uint8))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", np.array([{}]))
    np.save(tmp_path / "text.npy", np.full((4, 8, 8, 1), "a"))
    np.savez(tmp_path / "words.npz", images=np.array(["a cat", "a dog"]))
    np.save(tmp_path / "dates.npy", np.array(["2026-11-29"], np.datetime64))
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez_compressed(tmp_path / "damaged.npz", images=IMAGES)
    with open(tmp_path / "damaged.npz", "r+b") as file:
        file.seek(60)
        file.write(b"\xff" * 30)
    for name, kind in (("bzip2.npz", zipfile.ZIP_BZIP2), ("text.npz", zipfile.ZIP_STORED)):
        with zipfile.ZipFile(tmp_path / name, "w", kind) as archive:
            archive.writestr("images.txt", b"a" * 100)
    packed = bytearray((tmp_path / "text.npz").read_bytes())
    packed[packed.index(b"PK\1\2") + 10] = packed[8] = 98  # PPMd
    (tmp_path / "ppmd.npz").write_bytes(packed)
    header = str({"descr": "|u1", "fortran_order": False, "shape": (2**40, 8, 8, 1)})
    claim = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode()
    (tmp_path / "claim.npy").write_bytes(claim)
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "one.PNG").write_bytes(b"")
    np.save(tmp_path / "one.npy", IMAGES[0])
    for name, words in (
        ("none.npy", r"has shape \(4, 0, 8, 1\)"),
        ("objects.npy", "cannot be read: it holds Python objects"),
        ("objects.npz", "cannot be read: it is no .npz archive of numbers"),
        ("text.npy", "holds text, no images: give an array of uint8 or float"),
        ("words.npz", "holds text, no images: give"),
        ("dates.npy", r"holds datetime64\[D\], no images"),
        ("empty.npz", "cannot be read: it is no .npz archive"),
        ("damaged.npz", "cannot be read: it is no .npz archive of numbers, or damaged"),
        ("bzip2.npz", "cannot be read: it is no .npz archive of numbers"),
        ("text.npz", "cannot be read: it is no .npz archive of numbers"),
        ("ppmd.npz", "cannot be read: it is no .npz archive of numbers, or damaged"),
        ("claim.npy", "claims to hold more than fits into memory"),
        ("pipe.npy", "is a pipe or a device"),
        ("one.PNG", "is a single image: give the folder"),
        ("one.npy", r"is one image of shape \(8, 8, 1\)"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            drawn(tmp_path / name)
        assert "pickle" not in caught.value.message


@pytest.mark.parametrize("beyond", [0.0, 0.04])
def test_floats_are_those_of_their_range(tmp_path, beyond):
    floats = (IMAGES / 127.5 - 1.0).astype(np.float32)
    floats[0, 0, 0, 0], floats[0, 0, 1, 0] = -1.0 - beyond, 1.0 + beyond
    np.save(tmp_path / "floats.npy", floats)
    expected = IMAGES.copy()
    expected[0, 0, :2, 0] = 0, 255
    np.testing.assert_array_equal(drawn(tmp_path / "floats.npy"), expected)


def test_what_is_sorted_is_shuffled_and_of_many_images_some_are_taken(tmp_path):
    np.save(tmp_path / "sorted.npy", np.repeat(np.uint8([0, 100, 200]), 64 * 10).reshape(30, 8, 8))
    stored = StoredImages(str(tmp_path / "sorted.npy"))
    assert set(stored.draw(10, 0, 0)(0).ravel()) == {0, 100, 200}
    stored.take(12, 3)
    taken = stored.draw(12, 3, 0)(0)
    assert stored.num_images == len(taken) == 12 and set(taken.ravel()) == {0, 100, 200}
    again = StoredImages(str(tmp_path / "sorted.npy"))
    again.take(12, 3)
    np.testing.assert_array_equal(again.draw(12, 3, 0)(0), taken)
    assert stored.describe(3, 0)["seed"] == 3
