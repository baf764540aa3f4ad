"""LSUN prepared from a small database of LMDB, as TFDS would have fetched and unpacked it."""

import importlib.util
import io
import os

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from bdm_tf import config
from bdm_tf.data import TFDSImages, tfds_builders
from bdm_tf.data.lsun import Lsun
from bdm_tf.evaluation.job import make_evaluation
from bdm_tf.evaluation.paths import Paths
from bdm_tf.evaluation.subjects import open_subject
from bdm_tf.system.errors import UserError
from bdm_tf.training.strategy import make_strategy

SIZES = [(24, 40), (48, 24), (32, 32), (25, 31), (60, 60), (24, 24), (40, 26)]


def grey(i):
    return 30 * (i + 1)


def write_database(folder, values):
    lmdb = pytest.importorskip("lmdb")
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2**20) as database, database.begin(write=True) as write:
        for i, value in enumerate(values):
            content = io.BytesIO()
            height, width = SIZES[i % len(SIZES)]
            Image.new("RGB", (width, height), (value,) * 3).save(
                content, ("JPEG", "WEBP")[i % 2], quality=95
            )
            write.put(f"{i:040x}".encode(), content.getvalue())


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    """Puts the unpacked archives in place of the download; returns the URLs asked for."""
    write_database(tmp_path / "a" / "church_outdoor_train_lmdb", map(grey, range(5)))
    write_database(tmp_path / "b" / "church_outdoor_val_lmdb", map(grey, range(5, 7)))
    asked = {}

    def download_and_extract(self, urls):
        asked.update(urls)
        return {"train": tmp_path / "a", "val": tmp_path / "b"}

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", download_and_extract)
    monkeypatch.setattr(tfds_builders, "_check_network", lambda name, directory: None)
    return asked


def test_lsun_is_prepared_and_read_back(unpacked, tmp_path):
    data_dir = str(tmp_path / "data")
    source = TFDSImages("lsun/church_outdoor", image_size=16, eval_split="validation")
    train, evaluation = source.load(data_dir)
    assert train.image_shape == evaluation.image_shape == (16, 16, 3)
    for images, expected in ((train, range(5)), (evaluation, range(5, 7))):
        read = images.eval_images(99).astype(int)
        assert np.abs(read - read[:, :1, :1, :1]).max() <= 2
        np.testing.assert_allclose(np.sort(read[:, 0, 0, 0]), [*map(grey, expected)], atol=2)
    assert os.path.isdir(os.path.join(data_dir, "lsun", "church_outdoor", "3.1.0"))
    assert unpacked["train"].endswith("church_outdoor_train_lmdb.zip")

    unpacked.clear()
    again, _ = source.load(data_dir)
    np.testing.assert_array_equal(again.eval_images(99), train.eval_images(99))
    assert not unpacked, "what is prepared needs no download"


def test_every_image_keeps_its_name(unpacked, tmp_path):
    builder = Lsun(config="church_outdoor", data_dir=str(tmp_path / "data"))
    builder.download_and_prepare()
    examples = tfds.as_numpy(builder.as_dataset(split="train"))
    found = {int(e["id"], 16): e["image"] for e in examples}
    assert {i: image.shape[:2] for i, image in found.items()} == dict(enumerate(SIZES[:5]))


def test_the_stored_sizes_differ_so_one_must_be_given(unpacked, tmp_path):
    with pytest.raises(UserError, match="differ in size: set TFDSImages.image_size"):
        TFDSImages("lsun/church_outdoor", eval_split=None).load(str(tmp_path / "data"))


def test_without_lmdb_nothing_is_downloaded(unpacked, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "lmdb" else find_spec(name)
    )
    with pytest.raises(UserError, match="pip install lmdb"):
        TFDSImages("lsun/church_outdoor", image_size=16).load(str(tmp_path / "data"))
    assert not unpacked


def test_name_version_and_checksums_are_those_of_tfds():
    from tensorflow_datasets.image import lsun

    assert Lsun.name == lsun.Lsun.name and Lsun.VERSION == lsun.Lsun.VERSION
    assert Lsun.url_infos == lsun.Lsun.url_infos and Lsun.url_infos


def test_an_unknown_category_is_refused(tmp_path):
    with pytest.raises(UserError, match="lsun/castle"):
        TFDSImages("lsun/castle", image_size=16).load(str(tmp_path))


def test_lsun_is_scored_by_its_gin_file(unpacked, tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    np.savez(tmp_path / "drawn.npz", images=drawn)
    strategy = make_strategy("one_device")
    parameters = [
        "evaluate.data = @TFDSImages()",
        "TFDSImages.name = 'lsun/church_outdoor'",
        "TFDSImages.image_size = 16",
        "TFDSImages.eval_split = 'validation'",
        "KernelDistance.subset_size = 4",
    ]
    subject = open_subject(
        strategy,
        lambda: config.overlay(["eval/lsun_church.gin"], parameters),
        images=str(tmp_path / "drawn.npz"),
    )
    paths = Paths(str(tmp_path / "cache"), str(tmp_path / "data"), features="pixels")
    results = make_evaluation(subject, strategy, paths).score(str(tmp_path))
    expected = {"fd_pixels_train", "fd_pixels_eval", "fd_pixels_eval_to_train", "kd_pixels_train"}
    assert results["figures"].keys() == expected | {"precision_train", "recall_train"}
    assert results["figures"]["fd_pixels_train"]["num_real"] == 5
    assert results["figures"]["fd_pixels_eval"]["num_real"] == 2
