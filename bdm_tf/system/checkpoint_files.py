"""The files of checkpoints: which there are, of which step, and copies of them."""

from __future__ import annotations

import os
import re

import tensorflow as tf

from bdm_tf.system.errors import UserError, is_whole
from bdm_tf.system.paths import check_literal, expanded

KEPT, _BEST = "kept", "best"  # folders beside the newest
COPIES = (_BEST, KEPT)
WAS_SAVED = "saved.txt"  # in a workdir: that a checkpoint was whole there once


class BrokenCheckpoint(UserError):
    """A checkpoint that cannot be read, today or ever."""


def checkpoints_in(folder: str) -> list[str]:
    """Paths of the complete checkpoints that are directly in a folder, oldest first."""
    paths = tf.io.gfile.glob(os.path.join(folder, "ckpt-*.index"))
    return sorted((path[: -len(".index")] for path in paths), key=checkpoint_step)


def saved_checkpoints(directory: str) -> list[str]:
    """Paths of a folder's complete checkpoints, `kept` and `best` included, oldest first."""
    found = {}
    for folder in (*(os.path.join(directory, name) for name in COPIES), directory):
        for path in checkpoints_in(folder):
            found[checkpoint_step(path)] = path
    return [found[step] for step in sorted(found)]


def copy_to_best(path: str) -> None:
    """Copies a checkpoint to `checkpoints/best`, where training does not delete it."""
    directory = os.path.dirname(path)
    if os.path.basename(directory) in (KEPT, _BEST):
        directory = os.path.dirname(directory)
    copy_checkpoint(path, os.path.join(directory, _BEST))


def keep_one_best(directory: str, step: int) -> None:
    """Removes all checkpoints from the folder `best` but that of a step."""
    for index in tf.io.gfile.glob(os.path.join(directory, _BEST, "ckpt-*.index")):
        if checkpoint_step(index) != step:
            for file in [index, *tf.io.gfile.glob(index[: -len("index")] + "data-*")]:
                tf.io.gfile.remove(file)


def copy_checkpoint(path: str, folder: str) -> None:
    """Copies a checkpoint, unless it is there; it is there once it is whole."""
    if os.path.dirname(path) == folder or tf.io.gfile.exists(_inside(folder, f"{path}.index")):
        return
    tf.io.gfile.makedirs(folder)
    files = _files_of(path)
    if not files or not files[-1].endswith(".index"):
        raise FileNotFoundError(f"{path} is no longer there")
    for file in files:
        target = _inside(folder, file)
        tf.io.gfile.copy(file, f"{target}.partial", overwrite=True)
        tf.io.gfile.rename(f"{target}.partial", target, overwrite=True)


def move_checkpoint(path: str, folder: str) -> None:
    """Moves a checkpoint's files into a folder."""
    if tf.io.gfile.exists(folder) and not tf.io.gfile.isdir(folder):
        raise UserError(f"{folder} is a file, where a damaged checkpoint would go: move it away")
    tf.io.gfile.makedirs(folder)
    for file in _files_of(path):
        tf.io.gfile.rename(file, _inside(folder, file), overwrite=True)


def _files_of(path: str) -> list[str]:
    """A checkpoint's files, the index last: where it is, the others are."""
    return sorted(tf.io.gfile.glob([f"{path}.data-*", f"{path}.index"]))


def _inside(folder: str, file: str) -> str:
    return os.path.join(folder, os.path.basename(file))


def checkpoint_step(path: str) -> int:
    """The step in a checkpoint's name."""
    match = re.search(r"ckpt-(\d+)(\.index)?$", path)
    if match is None:
        raise UserError(f"{path} is not the name of a checkpoint (ckpt-STEP): move it away")
    return int(match.group(1))


def weights_to_start_from(path: str) -> str:
    """Path of the checkpoint that `--init_from` names: itself, or a workdir's newest.

    Raises:
        UserError: there is none.
    """
    path = expanded("--init_from", path)
    check_literal("--init_from", path)
    if tf.io.gfile.exists(f"{path}.index"):
        return path
    if tf.io.gfile.exists(os.path.join(path, "checkpoints")):
        return find_checkpoint(path, None)
    raise UserError(
        f"--init_from={path} is neither a workdir nor a checkpoint (.../checkpoints/ckpt-STEP)"
    )


def find_checkpoint(workdir: str, step: int | None) -> str:
    """Path of a workdir's checkpoint of a step, or of its newest.

    Raises:
        UserError: there is none, or `step` is no whole number.
    """
    if step is not None and not is_whole(step):
        raise UserError(f"step={step!r} must be a whole number")
    directory = os.path.join(workdir, "checkpoints")
    paths = saved_checkpoints(directory)
    if step is None and paths:
        return paths[-1]
    for path in paths:
        if checkpoint_step(path) == step:
            return path
    steps = ", ".join(str(checkpoint_step(path)) for path in paths) or "none"
    wanted = "" if step is None else f" of step {step}"
    raise UserError(f"{directory} has no checkpoint{wanted}; steps saved: {steps}")
