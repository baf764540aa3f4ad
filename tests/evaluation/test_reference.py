"""Statistics of real images: computed once, kept under what they are, handed in and out."""

import os

import numpy as np
import pytest

from bdm_tf.data import InMemoryImages
from bdm_tf.evaluation import PixelFeatures
from bdm_tf.evaluation import reference as reference_module
from bdm_tf.evaluation.reference import Reference
from bdm_tf.system.cluster import Cluster
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import read_npz, write_npz

TRAIN = np.random.default_rng(0).integers(0, 256, (130, 4, 3, 1)).astype(np.uint8)


class Counting:
    """Pixels as features, and how often they were asked for."""

    def __init__(self):
        self.images = 0

    def __call__(self, images):
        self.images += len(images)
        return {"features": images.reshape(len(images), -1).astype(np.float32) / 127.5 - 1}


def reference(tmp_path, train=TRAIN, extract=None, network=None, imported=None, batch_size=1):
    described = {"data_set": "a/b", "version": "1.0", "split": "train"}
    splits = {"train": InMemoryImages(train, described), "eval": None}
    return Reference(
        splits,
        network or PixelFeatures(),
        extract or Counting(),
        batch_size,
        str(tmp_path / "cache"),
        imported or {},
        Cluster(),
    )


def test_statistics_are_computed_once(tmp_path):
    first, second = Counting(), Counting()
    computed = reference(tmp_path, extract=first).statistics("train")
    cached = reference(tmp_path, extract=second).statistics("train")
    assert first.images >= 130 and second.images == 0
    x = TRAIN.reshape(130, -1) / 127.5 - 1
    for found in (computed, cached):
        np.testing.assert_allclose(found.mu, x.mean(0), atol=1e-7)
        np.testing.assert_allclose(found.sigma, np.cov(x, rowvar=False), atol=1e-7)
        assert found.count == 130
    (name,) = os.listdir(tmp_path / "cache")
    assert name.startswith("a_b-1.0-train-130-pixels-statistics-")


def test_other_data_counts_and_networks_do_not_collide(tmp_path):
    other = PixelFeatures()
    other.content_hash = "0" * 64
    changed = TRAIN.copy()
    changed[7, 0, 0, 0] ^= 1
    variants = [
        reference(tmp_path),
        reference(tmp_path, train=changed),
        reference(tmp_path, train=TRAIN[:100]),
        reference(tmp_path, train=TRAIN[::-1].copy()),
        reference(tmp_path, train=TRAIN.reshape(130, 3, 4, 1)),
        reference(tmp_path, network=other),
    ]
    for variant in variants:
        variant.statistics("train")
        variant.features("train", 50)
        variant.features("train", 60)
    assert len(os.listdir(tmp_path / "cache")) == 3 * len(variants)


def test_features_are_a_fixed_random_choice(tmp_path):
    counting = Counting()
    found = reference(tmp_path, extract=counting).features("train", 40)
    assert found.shape == (40, 12) and counting.images == 40
    again = reference(tmp_path, extract=Counting(), batch_size=7).features("train", 40)
    np.testing.assert_array_equal(found, again)
    rows = {row.tobytes() for row in Counting()(TRAIN)["features"]}
    assert all(row.tobytes() in rows for row in found)
    assert not np.array_equal(found, Counting()(TRAIN[:40])["features"])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("what", ["statistics", "features"])
def test_an_interrupted_pass_goes_on_where_it_was(what, tmp_path, monkeypatch):
    monkeypatch.setattr(reference_module, "_SAVE_EVERY", 50)

    class Failing(Counting):
        def __call__(self, images):
            if self.images > 115:
                raise Interrupted
            return super().__call__(images)

    def measured(extract):
        made = reference(tmp_path, extract=extract)
        return (
            made.statistics("train").sigma if what == "statistics" else made.features("train", 125)
        )

    with pytest.raises(Interrupted):
        measured(Failing())
    counting = Counting()
    resumed = measured(counting)
    assert counting.images == (30 if what == "statistics" else 25)  # 100 were kept
    x = TRAIN.reshape(130, -1) / 127.5 - 1
    if what == "statistics":
        np.testing.assert_allclose(resumed, np.cov(x, rowvar=False), atol=1e-7)
    else:
        whole = reference(tmp_path / "other").features("train", 125)
        np.testing.assert_array_equal(resumed, whole)
    assert len(os.listdir(tmp_path / "cache")) == 1


def test_exported_statistics_are_imported_in_place_of_the_images(tmp_path):
    source = reference(tmp_path)
    known = source.statistics("train")
    source.export(str(tmp_path / "out"))
    path = str(tmp_path / "out" / "train.npz")
    assert {"mu", "sigma", "n", "features_sha256", "data_sha256"} <= read_npz(path).keys()
    other = reference(tmp_path, train=TRAIN[:5], imported={"train": path})
    np.testing.assert_array_equal(other.statistics("train").mu, known.mu)
    np.testing.assert_allclose(other.statistics("train").sigma, known.sigma, rtol=1e-12)
    assert other.statistics("train").count == 130
    described, images = other.describe_statistics("train"), other.describe("train")
    assert described["data_sha256"] == source.describe("train")["data_sha256"]
    assert images["data_sha256"] != described["data_sha256"]  # five images, not those measured
    before = described["statistics_sha256"]
    changed = {**read_npz(path), "mu": known.mu + 1}
    write_npz(path, changed)
    after = reference(tmp_path, imported={"train": path}).protocol()["train statistics"]
    assert after["statistics_sha256"] != before
    assert other.has("train") and not other.has("eval")


def test_statistics_that_do_not_fit_are_refused(tmp_path):
    good = {"mu": np.zeros(12), "sigma": np.eye(12)}
    cases = {
        "of another size": ({"mu": np.zeros(20), "sigma": np.eye(20)}, "20 dimensions"),
        "of another network": ({**good, "features_sha256": "f" * 64}, "were made with"),
        "torn": ({"mu": np.zeros(12), "sigma": np.eye(3)}, "do not fit together"),
        "without sigma": ({"mu": np.zeros(12)}, "sigma"),
        "negative": ({**good, "sigma": -np.eye(12)}, "negative variances"),
        "of many counts": ({**good, "n": np.array([3, 4])}, "has no statistics"),
        "not finite": ({**good, "mu": np.full(12, np.nan)}, "not finite"),
    }
    for name, (arrays, message) in cases.items():
        path = str(tmp_path / f"{name}.npz")
        write_npz(path, arrays)
        with pytest.raises(UserError, match=message):
            reference(tmp_path, imported={"train": path}).statistics("train")
    (tmp_path / "text.npz").write_text("no archive")
    for path in ("text.npz", "absent.npz"):
        with pytest.raises(UserError, match=path):
            reference(tmp_path, imported={"train": str(tmp_path / path)}).statistics("train")


def test_the_images_decide_not_what_they_are_called(tmp_path):
    reference(tmp_path).statistics("train")
    renamed, counting = reference(tmp_path, extract=Counting()), None
    counting = renamed._extract
    renamed._splits["train"].description = {"data_set": "renamed"}
    renamed.statistics("train")
    assert counting.images == 0


def test_a_damaged_cache_is_named(tmp_path):
    reference(tmp_path).statistics("train")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged.*remove it"):
        reference(tmp_path).statistics("train")


def test_a_cache_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file in its place")
    with pytest.raises(UserError, match="--cache_dir=.*/cache cannot be used: .*Not a directory"):
        reference(tmp_path).statistics("train")


def test_images_of_a_split_that_is_not_there_are_not_invented(tmp_path):
    with pytest.raises(UserError, match="eval split"):
        reference(tmp_path).features("eval", 10)


def test_statistics_of_others_are_not_replaced_by_an_export(tmp_path):
    mine = reference(tmp_path)
    mine.statistics("train")
    mine.check_export(str(tmp_path))
    mine.export(str(tmp_path))
    mine.check_export(str(tmp_path))  # its own
    theirs = [
        reference(tmp_path, train=TRAIN[:100]).check_export,
        reference(tmp_path, imported={"train": str(tmp_path / "train.npz")}).check_export,
    ]
    for check in theirs:
        with pytest.raises(UserError, match="holds other statistics, which are not replaced"):
            check(str(tmp_path))
    np.savez(tmp_path / "train.npz", names=np.zeros(3))
    with pytest.raises(UserError, match="has no statistics"):
        mine.check_export(str(tmp_path))
