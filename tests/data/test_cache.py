"""A folder's images are decoded once, for as long as they stay as they are."""

import os

import numpy as np
import pytest
from PIL import Image

from bdm_tf.data import ImageFolder, cache


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder of what is kept, of which a few small files are worth it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(cache, "_WORTH_KEEPING", 1)
    return tmp_path / "caches" / "bdm_tf" / "folders"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(["a.png", "b.bmp", "more/a.png"]):
        draw(folder / name, i)
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded from here on."""
    names = []
    decode = ImageFolder._decode

    def watched(self, path):
        names.append(os.path.basename(path))
        return decode(self, path)

    monkeypatch.setattr(ImageFolder, "_decode", watched)
    return names


def draw(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def read(folder, size=4, **settings):
    images, _ = ImageFolder(size, **settings).load(str(folder), on_corrupt_image="skip")
    return images.eval_images(99)


def test_a_second_start_decodes_nothing_and_says_so(photos, kept, decoded, capsys):
    first = read(photos)
    (file,) = kept.iterdir()
    assert f"resized images are kept in {file} for the next start" in capsys.readouterr().out
    assert sorted(decoded) == ["a.png", "a.png", "b.bmp"]
    np.testing.assert_array_equal(read(f"{photos}/"), first)
    assert len(decoded) == 3
    assert f"3 of them are kept, resized, in {file}\n" in capsys.readouterr().out
    assert sorted(os.listdir(photos)) == ["a.png", "b.bmp", "more"]


def test_only_what_has_changed_is_decoded_again(photos, decoded):
    first = read(photos)
    written = os.stat(photos / "b.bmp").st_mtime_ns
    draw(photos / "b.bmp", 9)  # of the same size, and an archive may give it the same time
    os.utime(photos / "b.bmp", ns=(written, written))
    draw(photos / "c.png", 3)
    (photos / "a.png").unlink()
    (photos / "damaged.png").write_bytes(b"no image")
    del decoded[:]
    again = read(photos)
    assert sorted(decoded) == ["b.bmp", "c.png", "damaged.png"]
    assert again.shape == (3, 4, 4, 3) and (again[2] == first[2]).all()
    assert (again[0] != first[1]).any()
    del decoded[:]
    np.testing.assert_array_equal(read(photos), again)
    assert decoded == ["damaged.png"]


def test_other_settings_are_kept_beside(photos, kept, decoded):
    expected = [read(photos), read(photos, (4, 6)), read(photos, channels=1)]
    assert len(list(kept.iterdir())) == 3 and len(decoded) == 9
    again = [read(photos), read(photos, (4, 6)), read(photos, channels=1)]
    for one, other in zip(again, expected):
        np.testing.assert_array_equal(one, other)
    assert len(decoded) == 9


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:60],
        lambda content: b"PK" + content,
        lambda content: flip(content, 20),  # NumPy's header
        lambda content: flip(content, -10),  # an image
        lambda content: flip(content, -50),  # its CRC-32
        lambda content: flip(content, -100),  # of what it was made
    ],
)
def test_what_is_damaged_is_made_anew(photos, kept, decoded, damage):
    first = read(photos)
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    del decoded[:]
    np.testing.assert_array_equal(read(photos), first)
    assert decoded and file.read_bytes() == whole and len(list(kept.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_no_error(photos, tmp_path, caplog):
    (tmp_path / "caches").write_text("a file in its place")
    assert read(photos).shape == (3, 4, 4, 3)
    assert "resized images are not kept" in caplog.text


def test_what_was_not_used_for_longest_makes_room(photos, kept, monkeypatch):
    read(photos)
    (first,) = kept.iterdir()
    size = first.stat().st_size
    read(photos, channels=1)
    for i, file in enumerate(sorted(kept.iterdir(), key=lambda file: file == first)):
        os.utime(file, (i, i))
    read(photos)  # and so is the newest
    monkeypatch.setattr(cache, "_MAX_BYTES", 2 * size)
    read(photos, (2, 8))
    assert first in kept.iterdir() and len(list(kept.iterdir())) == 2
    monkeypatch.setattr(cache, "_MAX_BYTES", size // 2)
    read(photos, 16)
    assert len(list(kept.iterdir())) == 2


def test_little_is_not_kept(photos, kept, monkeypatch):
    monkeypatch.setattr(cache, "_WORTH_KEEPING", 2**25)
    read(photos)
    assert not kept.exists()
