"""Folders that a SavedModel may be written to."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import tensorflow as tf

from bdm_tf.saved_models import INFO
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import replaced
from bdm_tf.system.locks import locked

# What a SavedModel's folder holds, whole or half written; Keras 2 adds keras_metadata.pb.
_WRITTEN = re.compile(
    r"(saved_model\.pb(txt)?|fingerprint\.pb|keras_metadata\.pb)(\.tmp\w+)?"
    r"|variables/(variables_temp[^/]*/.*|variables\.(index|data-\d+-of-\d+)(\.\w+)*)"
    r"|assets\.extra/model_info\.json"
)


def check_free(export_dir: str, overwrite: bool) -> None:
    """Raises a `UserError` if `export_dir` exists and must not be overwritten.

    What may be, if at all, is what this library wrote as a SavedModel, or as a part of one.
    """
    if not export_dir:
        raise UserError("--export_dir is empty: give the name of a folder")
    here = os.path.realpath(export_dir)
    if os.path.ismount(here) or f"{os.path.realpath('.')}/".startswith(f"{here}/"):
        raise UserError(
            f"--export_dir={export_dir} is a mount point, or the current folder is in it, so that "
            "it cannot be replaced: give another folder"
        )
    for path in (export_dir, partial_of(export_dir), replaced(export_dir)):
        if os.path.islink(path):
            raise UserError(f"{path} is a link: remove it, or give another folder")
        if tf.io.gfile.exists(path) and (why := _why_not_ours(path)):
            raise UserError(
                f"{path} {why} and is not replaced: move it away, or give another folder"
            )
    if tf.io.gfile.exists(export_dir) and not overwrite:
        raise UserError(f"--export_dir={export_dir} exists; give --overwrite or another folder")


def partial_of(export_dir: str) -> str:
    """Where a SavedModel is written before it is whole."""
    return export_dir.rstrip("/") + ".partial"


@contextlib.contextmanager
def only_export_to(export_dir: str) -> Iterator[None]:
    """Refuses a second export to a folder while there is one; where there are no locks, does not.

    Raises:
        UserError: another process exports there.
        OSError: nothing can be written beside it.
    """
    if "://" in export_dir:
        yield
        return
    folder, name = os.path.split(export_dir.rstrip("/"))
    path = os.path.join(folder, f".{name}.lock")
    if folder:
        os.makedirs(folder, exist_ok=True)
    try:
        lock = locked(path)
    except BlockingIOError as error:
        raise UserError(
            f"another process exports to {export_dir}: wait until it is done, or give another "
            "folder"
        ) from error
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):
                os.remove(path)
            lock.close()


def _why_not_ours(path: str) -> str:
    """What is in a folder, in words, but for what `export_saved_model` writes, or a part of it."""
    nothing_of_ours = "is no SavedModel of this library"
    if not tf.io.gfile.isdir(path):
        return nothing_of_ours
    files = [
        os.path.join(folder, name)[len(path) :].strip("/")
        for folder, _, names in tf.io.gfile.walk(path)
        for name in names
        if tf.io.gfile.exists(os.path.join(folder, name))  # ram:// lists more than is there
    ]
    others = [file for file in sorted(files) if not _WRITTEN.fullmatch(file)]
    if len(others) < len(files) and others:
        return f"holds {others[0]}, which is of no SavedModel,"
    if others:
        return nothing_of_ours
    if not files:
        return ""
    try:
        with tf.io.gfile.GFile(os.path.join(path, INFO)) as file:
            return "" if "bdm_tf" in file.read() else nothing_of_ours
    except (OSError, UnicodeDecodeError, tf.errors.OpError):
        return nothing_of_ours
