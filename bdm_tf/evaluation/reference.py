"""Real images, measured once: statistics and features of a split, cached by what they are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from bdm_tf.data import Images
from bdm_tf.evaluation.features import FeatureNetwork
from bdm_tf.evaluation.statistics import GaussianStatistics
from bdm_tf.system.cluster import Cluster
from bdm_tf.system.errors import UserError, first_line
from bdm_tf.system.files import read_npz, write_npz, writing

_FORMAT = 1  # part of every key; goes up when the same key would mean other numbers
_SAVE_EVERY = 1000  # images between two savings of what is under way


class Reference:
    """The splits of a data set in the features of a network.

    All workers extract together and know the same; the chief alone reads and writes files.

    Args:
        splits: "train" and "eval" to their `Images`, or None where there is no such split.
        features: the feature network.
        extract: uint8 `[n, H, W, C]` to its outputs as arrays.
        batch_size: images that `extract` is given at a time.
        cache_dir: where results are kept; the file's name is for people, its key decides.
        imported: "train" or "eval" to a `.npz` with `mu` and `sigma`, used in place of the images.
        cluster: the workers.
    """

    def __init__(
        self,
        splits: dict[str, Images | None],
        features: FeatureNetwork,
        extract: Callable[[np.ndarray], dict[str, np.ndarray]],
        batch_size: int,
        cache_dir: str,
        imported: dict[str, str],
        cluster: Cluster,
    ):
        self._splits, self._network, self._extract = splits, features, extract
        self._batch_size, self._cache_dir, self._cluster = batch_size, cache_dir, cluster
        self._known: dict[str, GaussianStatistics] = {}
        self._keys: dict[str, str] = {}
        self._imported: dict[str, dict[str, str]] = {}  # how the statistics describe themselves
        for split, path in imported.items():
            self._known[split], self._imported[split] = self._load(path)

    def has(self, split: str) -> bool:
        """Whether there are statistics of this split to be had."""
        return split in self._imported or self._splits.get(split) is not None

    def has_images(self, split: str) -> bool:
        """Whether there are images of this split to be had."""
        return self._splits.get(split) is not None

    def batches(self, split: str) -> Iterator[np.ndarray]:
        """All images of a split in order, uint8 `[n, H, W, C]`, with a progress bar."""
        images = self.images(split)
        with self._bar(f"{split} images", images.num_images) as bar:
            for batch in images.in_order(self._batch_size):
                yield batch
                bar.update(len(batch))

    def describe(self, split: str) -> dict[str, str]:
        """What a result must say about the images of a split."""
        return {**self.images(split).description, "data_sha256": self._content(split)}

    def describe_statistics(self, split: str) -> dict[str, str]:
        """What a result must say about the statistics of a split, which may be imported."""
        return self._imported[split] if split in self._imported else self.describe(split)

    def protocol(self) -> dict[str, dict[str, str]]:
        """The images and the imported statistics that figures may depend on."""
        images = {split: self.describe(split) for split in self._splits if self.has_images(split)}
        imported = {f"{split} statistics": known for split, known in self._imported.items()}
        return {**images, **imported}

    def statistics(self, split: str) -> GaussianStatistics:
        """Mean and covariance of a split's features: imported, cached, or computed now."""
        if split not in self._known:
            self._known[split] = self._cached_statistics(split)
        return self._known[split]

    def features(self, split: str, max_images: int) -> np.ndarray:
        """Features float32 `[n, d]` of a fixed random choice of at most `max_images` images."""
        images = self.images(split)
        count = min(max_images, images.num_images)
        path, key = self._file(split, f"features-{count}")
        finished, saved = self._saved(path, key)
        if finished:
            return saved["features"]
        chosen = self.chosen(split, max_images)
        found = [saved["features"]] if saved else []
        kept = done = len(saved["features"]) if saved else 0
        for rows in self._extracted(split, chosen, done):
            found.append(rows)
            done += len(rows)
            if done - kept >= _SAVE_EVERY:
                kept = done
                self._save(f"{path}.under_way", key, {"features": np.concatenate(found)})
        features = np.concatenate(found)
        self._finish(path, key, {"features": features})
        return features

    def chosen(self, split: str, max_images: int) -> np.ndarray:
        """The numbers of the images whose `features` are found, rising."""
        order = np.random.default_rng(0).permutation(self.images(split).num_images)
        return np.sort(order[:max_images])

    def check_export(self, folder: str) -> None:
        """Looks, before anything is measured, at what `export` would replace.

        Raises:
            UserError: statistics of other features or images.
        """
        for split in self._splits:
            path = os.path.join(folder, f"{split}.npz")
            if not tf.io.gfile.exists(path) or not (
                self.has_images(split) or split in self._imported
            ):
                continue
            mine, there = self._described(split), _given(path)
            others = [name for name in there if name not in (*mine, "n", "mu", "sigma")]
            if others or any(str(there.get(name)) != str(value) for name, value in mine.items()):
                raise UserError(
                    f"--export_statistics: {path} holds other statistics, which are not replaced: "
                    "give another folder"
                )

    def _described(self, split: str) -> dict[str, str]:
        return {**self._network.describe(), **self.describe_statistics(split)}

    def export(self, folder: str) -> None:
        """Writes the statistics of the splits that were used: `train.npz`, `eval.npz`.

        Raises:
            UserError: they cannot be written.
        """
        if not self._cluster.is_chief:
            return
        for split, known in self._known.items():
            path = os.path.join(folder, f"{split}.npz")
            with writing(path):
                tf.io.gfile.makedirs(folder)
                write_npz(path, {**_arrays(known), **self._described(split)})

    def images(self, split: str) -> Images:
        """The images of a split; a `UserError` if there is none."""
        images = self._splits.get(split)
        if images is None:
            raise UserError(f"the data set has no {split} split")
        return images

    def _content(self, split: str) -> str:
        if split not in self._keys:
            self._keys[split] = self.images(split).content_key()
        return self._keys[split]

    def _cached_statistics(self, split: str) -> GaussianStatistics:
        images = self.images(split)
        path, key = self._file(split, "statistics")
        finished, saved = self._saved(path, key)
        if finished:
            return _statistics(saved)
        known = _statistics(saved) if saved else GaussianStatistics(self._dimensions())
        kept = known.count
        for rows in self._extracted(split, np.arange(images.num_images), kept):
            known.update(rows)
            if known.count - kept >= _SAVE_EVERY:
                kept = known.count
                self._save(f"{path}.under_way", key, _arrays(known))
        self._finish(path, key, _arrays(known))
        return known

    def _extracted(self, split: str, chosen: np.ndarray, done: int) -> Iterator[np.ndarray]:
        """Features of the images with these sorted numbers, but for the first `done` of them."""
        images = self.images(split)
        wanted = np.zeros(images.num_images, bool)
        wanted[chosen[done:]] = True
        passed = 0
        with self._bar(f"{split} features", len(chosen), done) as bar:
            for batch in images.in_order(self._batch_size):
                rows = batch[wanted[passed : passed + len(batch)]]
                passed += len(batch)
                if len(rows):
                    yield self._extract(rows)["features"]
                    bar.update(len(rows))

    def _bar(self, what: str, total: int, done: int = 0) -> tqdm:
        silent = not self._cluster.is_chief
        return tqdm(total=total, initial=done, desc=what, unit="img", disable=silent)

    def _saved(self, path: str, key: str) -> tuple[bool, dict[str, np.ndarray]]:
        """Whether `path` is there, and its arrays, or what an interrupted pass has left of them."""

        def look():
            for there in (path, f"{path}.under_way"):
                with contextlib.suppress(tf.errors.NotFoundError):
                    return there == path, _cached(there, key)
            return False, {}

        return self._cluster.of_chief(look)

    def _finish(self, path: str, key: str, arrays: dict[str, np.ndarray]) -> None:
        self._save(path, key, arrays)
        if self._cluster.is_chief:
            with contextlib.suppress(tf.errors.NotFoundError):
                tf.io.gfile.remove(f"{path}.under_way")

    def _file(self, split: str, what: str) -> tuple[str, str]:
        """Path and key of something that is known about a split."""
        images, network = self.images(split), self._network
        parts = [_FORMAT, what, images.num_images, self._content(split), network.content_hash]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        description = images.description
        words = [description.get(k, "") for k in ("data_set", "version", "split")]
        words += [str(images.num_images), network.name, what, key[:16]]
        name = re.sub(r"[^\w.+-]+", "_", "-".join(word for word in words if word))
        # Found whatever it is called: a folder of images may have been renamed.
        there = tf.io.gfile.glob(os.path.join(self._cache_dir, f"*-{key[:16]}.npz"))
        return (there or [os.path.join(self._cache_dir, f"{name[-200:]}.npz")])[0], key

    def _save(self, path: str, key: str, arrays: dict[str, np.ndarray]) -> None:
        if not self._cluster.is_chief:
            return
        try:
            tf.io.gfile.makedirs(self._cache_dir)
            write_npz(path, {"key": key, **self._network.describe(), **arrays})
        except (OSError, tf.errors.OpError) as error:
            logging.warning("statistics are not kept: %s", error)

    def _dimensions(self) -> int:
        images = next(images for images in self._splits.values() if images is not None)
        return self._extract(next(iter(images.in_order(1))))["features"].shape[1]

    def _load(self, path: str) -> tuple[GaussianStatistics, dict[str, str]]:
        """Statistics from a file of the user's, and what a result must say about them.

        Raises:
            UserError: it holds none, or those of other features.
        """
        saved = self._cluster.of_chief(_given, path)
        mu, sigma = saved["mu"], saved["sigma"]
        made_with = str(saved.get("features_sha256", self._network.content_hash))
        if made_with != self._network.content_hash:
            raise UserError(
                f"the statistics {path} were made with the features "
                f"{saved.get('features', '?')} ({made_with[:12]}), these are {self._network.name} "
                f"({self._network.content_hash[:12]})"
            )
        if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
            raise UserError(f"{path}: mu {mu.shape} and sigma {sigma.shape} do not fit together")
        if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
            raise UserError(f"{path}: mu or sigma is not finite")
        if not np.allclose(sigma, sigma.T, rtol=1e-3, atol=1e-3 * np.abs(sigma).max()):
            raise UserError(f"{path}: sigma is not symmetric, so it is no covariance")
        if (np.diag(sigma) < 0).any():
            raise UserError(f"{path}: sigma has negative variances, so it is no covariance")
        dimensions = self._dimensions()
        if len(mu) != dimensions:
            raise UserError(
                f"the statistics {path} have {len(mu)} dimensions, the features "
                f"{self._network.name} {dimensions}: they were made with another network or size"
            )
        known = GaussianStatistics.of(int(saved["n"]), mu, sigma)
        named = ("data_set", "version", "split", "data_sha256")
        described = {name: str(saved[name]) for name in named if name in saved}
        digest = hashlib.sha256(mu.tobytes() + sigma.tobytes()).hexdigest()
        return known, {**described, "statistics_sha256": digest}


def _given(path: str) -> dict[str, np.ndarray]:
    try:
        saved = read_npz(path, needed=("mu", "sigma"))
        measured = {  # and not of complex numbers
            n: saved[n].astype(np.float64, casting="same_kind") for n in ("mu", "sigma")
        }
        return saved | measured | {"n": np.array(int(saved.get("n", 0)))}
    except (ValueError, TypeError, OSError, tf.errors.OpError) as error:
        raise UserError(f"{path} has no statistics mu and sigma: {error}") from error


def _statistics(saved: dict[str, np.ndarray]) -> GaussianStatistics:
    return GaussianStatistics.of(int(saved["n"]), saved["mu"], saved["sigma"])


def _arrays(known: GaussianStatistics) -> dict[str, np.ndarray]:
    return {"n": np.array(known.count), "mu": known.mu, "sigma": known.sigma}


def _cached(path: str, key: str) -> dict[str, np.ndarray]:
    try:
        saved = read_npz(path)
    except tf.errors.NotFoundError:
        raise
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); remove it") from error
    except (OSError, tf.errors.OpError) as error:
        folder = os.path.dirname(path)
        raise UserError(
            f"--cache_dir={folder} cannot be used: {first_line(error)}; give another folder"
        ) from error
    if str(saved.get("key")) != key:
        raise UserError(f"{path} does not hold what its name says; remove it")
    return saved
