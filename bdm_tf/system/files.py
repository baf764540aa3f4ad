"""Files that are either as they were or whole, wherever `tf.io.gfile` reaches."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from bdm_tf.system.errors import UserError, first_line

# What a damaged archive, one with a password or one packed in an unknown way can raise.
_UNREADABLE = (
    *(EOFError, TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST_NAME = 255  # bytes
_PARTIAL = re.compile(r"(^|/)\.([^/;]*?)(?:\.\d+)?\.partial[^/;]*; ")  # a name that nobody gave
_PICTURES = (".png", ".gif", ".pdf", ".svg")
MARK = "bdm_tf"  # in pictures and archives of this library, which alone it replaces


def make_parent(path: str | None) -> None:
    """Makes the folder that a file is to be written to.

    Raises:
        UserError: it cannot be made.
    """
    folder = os.path.dirname(path or "")
    try:
        if folder:
            tf.io.gfile.makedirs(folder)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"{path} cannot be written: {first_line(error)}") from error


def check_writable(path: str | None) -> None:
    """Finds out whether a file can be written, before there is anything to write.

    Raises:
        UserError: it cannot, or what is there is of another kind than its name says.
    """
    if not path:
        return
    if tf.io.gfile.isdir(path) or path.endswith("/"):
        raise UserError(f"{path} is a folder: give the name of a file")
    check_no_pipe(path)
    make_parent(path)
    if os.path.splitext(path)[1].lower() in _PICTURES:
        _check_marked(path)
    with writing(path):
        mine = _beside(_led_to(path), f"{os.getpid()}.partial")  # others may be looking, too
        write_atomically(mine, "")
        tf.io.gfile.remove(mine)


def check_no_pipe(path: str, flag: str = "") -> None:
    """Raises a `UserError` for what is no file, reading which could wait for ever.

    Args:
        path: of a file or a folder, or of nothing.
        flag: what it was given as.
    """
    if "://" not in path and os.path.exists(path) and not os.path.isfile(path):
        if not os.path.isdir(path):
            named = f"{flag}={path}" if flag else path
            raise UserError(f"{named} is a pipe or a device: give the name of a file")


def set_aside(path: str) -> None:
    """Renames a file that is not of this library, with a warning, before another takes its name."""
    if _is_marked(path):
        return
    number = 1
    while tf.io.gfile.exists(f"{path}.kept{number}"):
        number += 1
    tf.io.gfile.rename(path, f"{path}.kept{number}")
    logging.warning("%s was not made by this library: it is now %s.kept%d", path, path, number)


def _is_marked(path: str) -> bool:
    """Whether a file may be replaced: it is of this library, or empty, or not there."""
    if not tf.io.gfile.exists(path):
        return True
    with tf.io.gfile.GFile(path, "rb") as file:
        there = file.read()
    return not there or MARK.encode() in there


def _check_marked(path: str) -> None:
    """Raises a `UserError` for a file that is not empty and not of this library."""
    if not _is_marked(path):
        raise UserError(
            f"{path} was not made by this library (or by one before 0.2) and is not replaced: give "
            "another name, or remove it"
        )


def check_replaces(path: str | None, arrays: Sequence[str]) -> None:
    """Raises a `UserError` if a `.npz` that is there is not of this library, or of other arrays."""
    if not path or not path.lower().endswith(".npz") or not tf.io.gfile.exists(path):
        return
    try:
        there = sorted(read_npz(path))
    except (ValueError, OSError, tf.errors.OpError):
        there = ["what is no array"]
    if set(there) - set(arrays):
        raise UserError(
            f"{path} holds {', '.join(there)}: it is not replaced by {', '.join(arrays)}; give "
            "another name"
        )
    _check_marked(path)


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Around what writes a file.

    Raises:
        UserError: it cannot be written.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = why_not_written(error).removeprefix(f"{path}; ")
        raise UserError(f"{path} cannot be written: {reason}") from error


def why_not_written(error: Exception, again: str = "give the same command again") -> str:
    """The reason, and the way out, which is another where there is no room.

    Args:
        error: what writing raised.
        again: what to do, or what happens, once the reason is gone.
    """
    reason = _PARTIAL.sub(r"\1\2; ", first_line(error))
    code = getattr(error, "errno", None)
    full = code in _NO_ROOM or isinstance(error, tf.errors.ResourceExhaustedError)
    if os.strerror(errno.EFBIG) in reason:
        return f"{reason}; make room, or raise the limit on a file's size (ulimit -f), and {again}"
    if full or any(os.strerror(number) in reason for number in _NO_ROOM):
        return f"{reason}; make room, and {again}"
    return f"{reason}; mend that, or give another path"


def write_atomically(path: str, content: str | bytes) -> None:
    """Writes a file under another, hidden name and renames it when it is whole.

    Of a link, what it leads to is written.
    """
    path = _led_to(path)
    partial = _beside(path, "partial")
    try:
        with tf.io.gfile.GFile(partial, "w" if isinstance(content, str) else "wb") as file:
            file.write(content)
        tf.io.gfile.rename(partial, path, overwrite=True)
    except (OSError, tf.errors.OpError):
        with contextlib.suppress(OSError, tf.errors.OpError):
            tf.io.gfile.remove(partial)
        raise


def _led_to(path: str) -> str:
    return os.path.realpath(path) if os.path.islink(path) else path


def _beside(path: str, ending: str) -> str:
    """A hidden name beside a file, no longer than a name may be."""
    folder, name = os.path.split(path)
    hidden = f".{name}.{ending}"
    if len(hidden.encode()) > _LONGEST_NAME >= len(name.encode()):
        hidden = f".{hashlib.sha256(name.encode()).hexdigest()[:16]}.{ending}"
    return os.path.join(folder, hidden)


def replace_folder(source: str, target: str) -> None:
    """Gives a folder the name of another, if there is one, which is removed once that is done.

    In a store, where files alone are renamed, one after the other, it is removed before.
    """
    if "://" in target and tf.io.gfile.exists(target):
        remove_folder(target)
    if not tf.io.gfile.exists(target):
        rename_folder(source, target)
        return
    old = replaced(target)
    if tf.io.gfile.exists(old):
        remove_folder(old)
    rename_folder(target, old)
    try:
        rename_folder(source, target)
    except (OSError, tf.errors.OpError):
        rename_folder(old, target)
        raise
    remove_folder(old)


def replaced(folder: str) -> str:
    """Where a folder is while another takes its name."""
    return folder.rstrip("/") + ".replaced"


def rename_folder(source: str, target: str) -> None:
    """Gives a folder a name that is free; where only files can be renamed, inner folders first."""
    try:
        tf.io.gfile.rename(source, target)
    except tf.errors.OpError:
        if "://" not in source:
            raise
        # ram:// for instance
        for folder, _, names in tf.io.gfile.walk(source, topdown=False):
            moved = os.path.join(target, folder[len(source) :].strip("/"))
            tf.io.gfile.makedirs(moved)
            for name in names:
                if tf.io.gfile.exists(
                    os.path.join(folder, name)
                ):  # ram:// lists more than is there
                    tf.io.gfile.rename(os.path.join(folder, name), os.path.join(moved, name))
        remove_folder(source)


def remove_folder(path: str) -> None:
    """Removes a folder and all that is in it."""
    try:
        tf.io.gfile.rmtree(path)
    except tf.errors.NotFoundError:  # of ram://, which finds some files twice and removes them all
        if "://" not in path:
            raise


def write_npz(path: str, arrays: Mapping[str, Any], compressed: bool = False) -> None:
    """Writes named arrays as `.npz`, atomically."""
    content = io.BytesIO()  # an archive is written with seeks, which GFile has not
    (np.savez_compressed if compressed else np.savez)(content, **arrays)
    with zipfile.ZipFile(content, "a") as archive:
        archive.comment = MARK.encode()
    write_atomically(path, content.getvalue())


def sha256(path: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with tf.io.gfile.GFile(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def read_npz(path: str, needed: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The named arrays of a `.npz`.

    Raises:
        OSError, ValueError, OpError: it is none, or has not all arrays that are needed.
    """
    check_no_pipe(path)
    with tf.io.gfile.GFile(path, "rb") as file:
        content = io.BytesIO(file.read())
    if not zipfile.is_zipfile(content):  # NumPy would speak of pickles
        raise ValueError("it is no .npz archive")
    try:
        with np.load(content, allow_pickle=False) as archive:
            arrays = dict(archive)
    except MemoryError as error:
        raise ValueError("what it holds, by its own account, does not fit into memory") from error
    except _UNREADABLE as error:
        raise ValueError("it is no .npz archive of numbers, or damaged") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("it is no .npz archive of numbers")
    if lacking := sorted(set(needed) - set(arrays)):
        raise ValueError(f"it lacks {', '.join(lacking)}")
    return arrays
