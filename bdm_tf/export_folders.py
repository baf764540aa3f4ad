"""Folders that a SavedModel may be written to."""

from __future__ import annotations

import os
import re

import tensorflow as tf

from bdm_tf.saved_models import INFO
from bdm_tf.system.errors import UserError

# What a SavedModel's folder holds; Keras 2 adds the last. Half-written files have an ending more.
_WRITTEN = ("assets", "fingerprint", "saved_model", "variables", "keras_metadata")


def check_free(export_dir: str, overwrite: bool) -> None:
    """Raises a `UserError` if `export_dir` exists and must not be overwritten.

    What may be, if at all, is what this library wrote as a SavedModel, or as a part of one.
    """
    if not export_dir:
        raise UserError("--export_dir is empty: give the name of a folder")
    for path in (export_dir, partial_of(export_dir)):
        if os.path.islink(path):
            raise UserError(f"{path} is a link: remove it, or give another folder")
        if tf.io.gfile.exists(path) and not _is_ours(path):
            raise UserError(
                f"{path} is no SavedModel of this library and is not replaced: move it away, or "
                "give another folder"
            )
    if tf.io.gfile.exists(export_dir) and not overwrite:
        raise UserError(f"--export_dir={export_dir} exists; give --overwrite or another folder")


def partial_of(export_dir: str) -> str:
    """Where a SavedModel is written before it is whole."""
    return export_dir.rstrip("/") + ".partial"


def _is_ours(path: str) -> bool:
    """Whether a folder holds what `export_saved_model` writes, or a part of it, and no more."""
    if not tf.io.gfile.isdir(path):
        return False
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(path)]
    known = all(any(re.fullmatch(rf"{w}([._].*)?", name) for w in _WRITTEN) for name in names)
    if not known or not names:
        return known
    try:
        with tf.io.gfile.GFile(os.path.join(path, INFO)) as file:
            return "bdm_tf" in file.read()
    except (OSError, UnicodeDecodeError, tf.errors.OpError):
        return False
