"""A folder's images, decoded once: what is resized is kept for the next start."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import compress

import numpy as np
import PIL
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from bdm_tf.data.resize import VERSION
from bdm_tf.system.paths import default_cache_dir

_WORTH_KEEPING = 2**25  # bytes of image files: fewer are decoded in a moment
_MAX_BYTES = 4 * 2**30  # of all that is kept; what was not used for longest goes first


def read_images(
    folder: str,
    paths: list[str],
    shape: tuple[int, int, int],
    decode: Callable[[str], np.ndarray],
) -> tuple[np.ndarray, list[str], list[ValueError]]:
    """The images of a folder, decoded now or kept from an earlier start.

    They are kept in the user's cache folder, by path, size and time of change.

    Args:
        folder: what they are below.
        paths: the files, each beginning with `folder`.
        shape: `(H, W, C)`.
        decode: `decode(path) -> uint8 [H, W, C]`; ValueError for a file that is no image.

    Returns:
        uint8 `[n, H, W, C]`, those that could be decoded in the order of `paths`; their paths; and
        the errors.
    """
    kept = _Kept(folder, shape)
    rows = np.empty(len(paths), kept.dtype)

    def read(place: int) -> int | ValueError | None:
        """The bytes of the file that was decoded, why it cannot be, or None: it was kept."""
        stamp, size = _stamp(paths[place], folder)
        row = kept.row(stamp)
        if row is not None:
            rows[place] = row
            return None
        try:
            image = decode(paths[place])
        except ValueError as error:
            return error
        rows[place] = (stamp, zlib.crc32(image.tobytes()), image)
        return size

    pool = ThreadPoolExecutor()
    try:
        results = pool.map(read, range(len(paths)))
        found = list(tqdm(results, f"reading {folder}", len(paths), unit="img", delay=2))
    finally:
        pool.shutdown(cancel_futures=True)
    errors = [result for result in found if isinstance(result, ValueError)]
    if errors:
        is_read = [not isinstance(result, ValueError) for result in found]
        rows, paths = rows[is_read], list(compress(paths, is_read))
    if None in found:
        kept.used(found.count(None))
    if sum(result for result in found if isinstance(result, int)) >= _WORTH_KEEPING:
        kept.keep(rows)
    return np.ascontiguousarray(rows["image"]), paths, errors


class _Kept:
    """The file of a folder's resized images: rows that each say of what they were made."""

    def __init__(self, folder: str, shape: tuple[int, int, int]):
        self.dtype = np.dtype([("stamp", "S64"), ("crc32", "u4"), ("image", "u1", shape)])
        where = folder if "://" in folder else os.path.realpath(folder)
        settings = json.dumps([VERSION, PIL.__version__, where, *shape])
        name = hashlib.sha256(settings.encode()).hexdigest()[:32]
        self._folder = os.path.join(default_cache_dir(), "folders")
        self._path = os.path.join(self._folder, f"{name}.npy")
        self._rows = np.empty(0, self.dtype)
        with contextlib.suppress(Exception):  # not there, or damaged: NumPy may raise anything
            rows = np.load(self._path)
            if rows.dtype == self.dtype:
                self._rows = rows
        self._places = {stamp: i for i, stamp in enumerate(self._rows["stamp"]) if stamp}

    def row(self, stamp: bytes):
        """What was made of the file with this stamp, or None."""
        place = self._places.get(stamp)
        if place is None:
            return None
        row = self._rows[place]
        return row if zlib.crc32(row["image"].tobytes()) == row["crc32"] else None

    def used(self, count: int) -> None:
        """Says so, also to whoever looks for what was not used for longest."""
        print(f"{count} of them are kept, resized, in {self._path}", flush=True)
        with contextlib.suppress(OSError):
            os.utime(self._path)

    def keep(self, rows: np.ndarray) -> None:
        """Puts rows in place of what there is, unless they are more than may be kept."""
        if rows.nbytes > _MAX_BYTES:
            return
        partial = f"{self._path}.{os.getpid()}"
        try:
            os.makedirs(self._folder, exist_ok=True)
            self._make_room(rows.nbytes)
            with open(partial, "wb") as file:
                np.save(file, rows)
            os.replace(partial, self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.remove(partial)
            logging.warning("resized images are not kept: %s", error)
        else:
            print(f"resized images are kept in {self._path} for the next start", flush=True)

    def _make_room(self, size: int) -> None:
        others = [entry for entry in os.scandir(self._folder) if entry.path != self._path]
        others.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in others:
            size += entry.stat().st_size
            if size > _MAX_BYTES:
                os.remove(entry.path)


def _stamp(path: str, folder: str) -> tuple[bytes, int]:
    """What changes when a file does, and its size in bytes; nothing, 0 if it cannot be found."""
    try:
        if "://" in path:
            remote = tf.io.gfile.stat(path)
            size, times = remote.length, [remote.mtime_nsec]
        else:
            local = os.stat(path)  # TensorFlow's times are whole seconds
            size, times = local.st_size, [local.st_mtime_ns, local.st_ctime_ns]
    except (OSError, tf.errors.OpError):
        return b"", 0
    parts = json.dumps([path[len(folder) :].lstrip("/"), size, *times])
    return hashlib.sha256(parts.encode()).hexdigest().encode(), size
