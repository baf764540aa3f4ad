"""TFDS data sets: made here, so that nothing is downloaded."""

import json
import re
import shutil
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from bdm_tf.data import InMemoryImages, RecordImages, TFDSImages, training_dataset
from bdm_tf.data.tfds_builders import _FORMAT_MODULES, _check_network
from bdm_tf.system.errors import UserError
from tests.conftest import run


class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of 9 training and 3 test examples, known to TFDS by its files alone."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features, _ = SETS[self.name]
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        splits = {"train": range(9), "test": range(9, 12)}
        return {name: self._generate_examples(numbers) for name, numbers in splits.items()}

    def _generate_examples(self, numbers):
        _, example = SETS[self.name]
        for i in numbers:
            yield i, example(i)


def prepare(name, data_dir, file_format="tfrecord"):
    kind = type(name, (Small,), {"name": name, "__module__": __name__}, skip_registration=True)
    kind(data_dir=data_dir, file_format=file_format).download_and_prepare()


def picture(i, size):
    return np.full((*size, 3), 20 * i, np.uint8)


SETS = {
    "ragged": (
        {
            "picture": tfds.features.Image(shape=(None, None, 3)),
            "n": tfds.features.Scalar(np.int32),
        },
        lambda i: {"picture": picture(i, (8 + i, 20 - i)), "n": i},
    ),
    "even": (
        {"image": tfds.features.Image(shape=(6, 4, 3))},
        lambda i: {"image": picture(i, (6, 4))},
    ),
    "labels": ({"label": tfds.features.ClassLabel(num_classes=12)}, lambda i: {"label": i}),
    "deep": (
        {"image": tfds.features.Image(shape=(6, 4, 1), dtype=np.uint16)},
        lambda i: {"image": np.full((6, 4, 1), 1000 * i, np.uint16)},
    ),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("sets"))
    for name in SETS:
        prepare(name, path)
    return path


def values(images):
    return sorted((images.eval_images(99)[:, 0, 0, 0] // 20).tolist())


@pytest.mark.parametrize("size", [8, (6, 10)])
def test_images_of_varying_size_come_in_the_size_asked_for(data_dir, size):
    train, evaluation = TFDSImages("ragged", size, image_key="picture").load(data_dir)
    assert train.image_shape == (*(size if isinstance(size, tuple) else (8, 8)), 3)
    assert train.eval_images(99).shape == (9, *train.image_shape)
    assert values(train) == [*range(9)] and values(evaluation) == [9, 10, 11]


def test_images_of_varying_size_need_a_size(data_dir):
    with pytest.raises(UserError, match="differ in size: set TFDSImages.image_size"):
        TFDSImages("ragged", image_key="picture").load(data_dir)


def test_images_of_one_size_keep_it(data_dir):
    train, _ = TFDSImages("even").load(data_dir)
    assert train.image_shape == (6, 4, 3) and isinstance(train, InMemoryImages)
    assert values(train) == [*range(9)]


def test_streamed_images_are_those_held_in_memory(data_dir):
    held, _ = TFDSImages("ragged", 8, image_key="picture").load(data_dir)
    records, _ = TFDSImages("ragged", 8, image_key="picture", max_memory_gb=0).load(data_dir)
    assert isinstance(records, RecordImages)
    np.testing.assert_array_equal(records.eval_images(99), held.eval_images(99))
    dataset = training_dataset(records, batch_size=9, seed=0, first_step=0, flip=False)
    for element in dataset.take(2).as_numpy_iterator():
        drawn = np.sort(element["image"][:, 0, 0, 0])
        np.testing.assert_allclose(drawn, np.arange(9) * 20 / 127.5 - 1, atol=1e-6)


def test_splits_are_read_in_tfds_s_language(data_dir):
    def load(**splits):
        return TFDSImages("even", **splits).load(data_dir)

    first, rest = load(train_split="train[:4]", eval_split="train[4:]")
    assert (first.num_images, rest.num_images) == (4, 5)
    assert sorted(values(first) + values(rest)) == [*range(9)]
    assert values(load(train_split="train+test", eval_split=None)[0]) == [*range(12)]
    assert load(eval_split=None)[1] is None


@pytest.mark.parametrize("split", ["dev", "train[", "train[:900%]", "train[20:]"])
def test_a_split_that_is_not_there_is_refused(data_dir, split):
    with pytest.raises(UserError) as refused:
        TFDSImages("even", train_split=split).load(data_dir)
    assert f"no split {split!r}; it has ['test', 'train']" in str(refused.value)


@pytest.mark.parametrize("split", ["train[:0]", "train[5:2]"])
def test_an_empty_split_is_refused(data_dir, split):
    with pytest.raises(UserError, match="is empty"):
        TFDSImages("even", train_split=split).load(data_dir)


def test_a_wrong_image_key_is_answered_with_the_right_one(data_dir):
    for key in ("image", "n"):
        with pytest.raises(UserError, match=rf"no uint8 image '{key}'.*one of \['picture'\]"):
            TFDSImages("ragged", 8, image_key=key).load(data_dir)


@pytest.mark.parametrize("name", ["labels", "deep"])
def test_a_data_set_without_uint8_images_is_refused(data_dir, name):
    with pytest.raises(UserError, match=f"{name} has no uint8 image 'image' nor any other"):
        TFDSImages(name).load(data_dir)


def test_an_unknown_name_is_answered_with_close_ones(tmp_path):
    with pytest.raises(UserError, match="no data set 'cifra10'; did you mean cifar10"):
        TFDSImages("cifra10").load(str(tmp_path))
    with pytest.raises(UserError, match="no data set 'qqqq'$"):
        TFDSImages("qqqq").load(str(tmp_path))


@pytest.mark.parametrize("name", ["cifar10/small", "cifar10:9.9.9"])
def test_an_unknown_configuration_or_version_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=f"cannot open '{name}'"):
        TFDSImages(name).load(str(tmp_path))


@pytest.fixture
def no_network(monkeypatch):
    def getaddrinfo(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_without_data_and_network_the_way_out_is_said_at_once(tmp_path, no_network):
    began = time.monotonic()
    with pytest.raises(UserError) as refused:
        TFDSImages("cifar10").load(str(tmp_path))
    assert time.monotonic() - began < 20
    assert f"'cifar10' is not in {tmp_path}" in str(refused.value)
    assert "prepared_builder('cifar10', 'DIR')" in str(refused.value)


def test_a_proxy_may_know_the_names(no_network, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    assert _check_network("cifar10", "DIR") is None


def test_a_download_that_fails_is_told_with_the_way_out(tmp_path, monkeypatch):
    def download_and_extract(self, urls):
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", download_and_extract)
    with pytest.raises(UserError, match="(?s)reset by peer.*prepared_builder"):
        TFDSImages("cifar10").load(str(tmp_path))


@pytest.mark.parametrize("file_format", ["array_record", "parquet"])
def test_another_file_format_gives_the_same_batches(data_dir, tmp_path, file_format):
    # Beside NumPy 1 there may be a pyarrow that needs NumPy 2.
    pytest.importorskip(_FORMAT_MODULES[file_format], exc_type=ImportError)
    prepare("even", str(tmp_path), file_format)
    splits = dict(train_split="train[2:]+test", eval_split=None, max_memory_gb=0)
    expected, _ = TFDSImages("even", **splits).load(data_dir)
    records, _ = TFDSImages("even", **splits).load(str(tmp_path))
    assert records.content_key() == expected.content_key()
    for first_step in (0, 3):
        batches = [
            images.train_batches(batch_size=4, seed=1, first_step=first_step).take(4)
            for images in (records, expected)
        ]
        np.testing.assert_array_equal(*(list(b.as_numpy_iterator()) for b in batches))


def test_a_file_format_that_cannot_be_read_is_refused_with_the_way_out(tmp_path):
    TFDSImages("digits").load(str(tmp_path / "riegeli"))
    path = tmp_path / "riegeli" / "digits" / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fileFormat": "riegeli"}))
    with pytest.raises(UserError) as refused:
        TFDSImages("digits").load(str(tmp_path / "riegeli"))
    assert "stored as riegeli, which cannot be read here (No module" in str(refused.value)
    code = re.search('`python -c "(.*)"`', str(refused.value)).group(1)
    prepared = run([sys.executable, "-c", code.replace("DIR", str(tmp_path / "tfrecord"))])
    assert prepared.returncode == 0, prepared.stderr
    assert TFDSImages("digits").load(str(tmp_path / "tfrecord"))[0].num_images == 1438


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def cut_between_records(path):
    """As a copy that was interrupted may be, which no checksum notices."""
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))][:-1]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@pytest.mark.parametrize("memory", [4.0, 0.0])
@pytest.mark.parametrize("damage", [cut, cut_between_records, Path.unlink])
def test_a_damaged_shard_is_named(tmp_path, damage, memory):
    prepare("even", str(tmp_path))
    (shard,) = (tmp_path / "even" / "1.0.0").glob("even-train*")
    damage(shard)
    with pytest.raises(UserError, match=f"{shard} is damaged or lost: .* remove {shard.parent} to"):
        list(TFDSImages("even", max_memory_gb=memory).load(str(tmp_path))[0].in_order(9))


def test_a_damaged_shard_met_in_training_is_the_failure_of_the_images(tmp_path):
    prepare("even", str(tmp_path))
    (shard,) = (tmp_path / "even" / "1.0.0").glob("even-train*")
    images, _ = TFDSImages("even", max_memory_gb=0.0).load(str(tmp_path))
    cut_between_records(shard)
    dataset = training_dataset(images, batch_size=9, seed=0, first_step=0, flip=False)
    with pytest.raises(tf.errors.OpError) as raised:
        next(iter(dataset))
    assert f"{shard} is damaged or lost" in str(images.failure_by(raised.value))
    assert images.failure_by(tf.errors.UnavailableError(None, None, "a worker")) is None


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", [None, "", "{ no", "{}"])
def test_a_damaged_description_of_the_data_is_named(tmp_path, name, content):
    prepare("even", str(tmp_path))
    path = tmp_path / "even" / "1.0.0" / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=f"{name} .*is damaged, bring it back, or remove"):
        TFDSImages("even").load(str(tmp_path))


def test_lost_information_on_a_known_data_set_is_named(digits_dir, tmp_path):
    copy = tmp_path / "digits" / "1.0.0"
    shutil.copytree(f"{digits_dir}/digits/1.0.0", copy)
    (copy / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=f"{copy} lacks dataset_info.json: bring it back"):
        TFDSImages("digits").load(str(tmp_path))


@pytest.mark.parametrize("train, held_out", [("train+test", "test"), ("train", "train[50:90]")])
def test_splits_that_share_images_are_told(digits_dir, train, held_out):
    source = TFDSImages("digits", train_split=train, eval_split=held_out)
    source.load(digits_dir)
    assert source.splits_overlap


def test_parts_of_a_split_are_apart(digits_dir):
    source = TFDSImages("digits", train_split="train[:90%]", eval_split="train[90%:]")
    images, evaluation = source.load(digits_dir)
    assert images.num_images + evaluation.num_images == 1438 and not source.splits_overlap
