"""Whether a folder can become, or go on being, a run's workdir: looked at, and nothing changed."""

from __future__ import annotations

import json
import math
import os

import tensorflow as tf

from bdm_tf.system.checkpoint_files import WAS_SAVED, saved_checkpoints
from bdm_tf.system.errors import UserError

_FOLDERS = ("samples", "logs", "checkpoints", "saved_model")
_MEASURED = ("spectrum.npz", "prior.npz", "trust.npz")
_FILES = ("metrics.jsonl", "history.json", "samples/final.png", *_MEASURED)
_WRITTEN = ("metrics.jsonl", "samples", "logs", "checkpoints", *_MEASURED)
_BEGINNING = b'{"step": '
_NOTES = {"trainer.json": {"host", "pid", "mark"}, "history.json": {"images", "changes"}}


def check_free(workdir: str, checkpoints: str) -> None:
    """Raises a `UserError` for files that a run would overwrite and that are no run's.

    Nor may a run that had checkpoints begin anew over what it left.
    """
    if saved_checkpoints(checkpoints):
        return
    _check_not_within(workdir)
    if tf.io.gfile.exists(os.path.join(workdir, "config.gin")) or any(
        _holds(os.path.join(workdir, name), keys) for name, keys in _NOTES.items()
    ):
        _check_nothing_is_lost(workdir)
        return
    names = (*_WRITTEN, *_NOTES)
    taken = [name for name in names if tf.io.gfile.exists(os.path.join(workdir, name))]
    taken = [name for name in taken if not is_empty_folder(os.path.join(workdir, name))]
    if taken:
        raise UserError(
            f"--workdir={workdir} holds {', '.join(taken)}, but no run of this library (it has no "
            "config.gin): nothing is overwritten; give another --workdir"
        )


def _check_not_within(workdir: str) -> None:
    """Raises a `UserError` for a SavedModel, or a folder that another run keeps its files in."""
    if tf.saved_model.contains_saved_model(workdir):
        raise UserError(f"--workdir={workdir} is a SavedModel: give another folder for the run")
    around, name = os.path.split(os.path.normpath(workdir))
    if name in _FOLDERS and tf.io.gfile.exists(os.path.join(around, "config.gin")):
        raise UserError(
            f"--workdir={workdir} is the folder {name} of the run in {around}: give that, or "
            "another folder"
        )


def _holds(path: str, keys: set[str]) -> bool:
    """Whether a file is JSON with these keys."""
    try:
        with tf.io.gfile.GFile(path) as file:
            return keys <= set(json.load(file))
    except (tf.errors.OpError, OSError, ValueError, TypeError):
        return False


def _check_nothing_is_lost(workdir: str) -> None:
    """Raises a `UserError` for a run that had checkpoints, of which none is there."""
    signs = (WAS_SAVED, os.path.join("saved_model", "saved_model.pb"))
    if any(tf.io.gfile.exists(os.path.join(workdir, sign)) for sign in signs):
        raise UserError(
            f"--workdir={workdir} holds a run that was at step {_last_measured(workdir)}, but none "
            "of its checkpoints: bring the folder checkpoints back, or give another --workdir; "
            "nothing is changed here"
        )


def _last_measured(workdir: str) -> int:
    """The last step in metrics.jsonl, 0 without one."""
    path = os.path.join(workdir, "metrics.jsonl")
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        return 0
    with tf.io.gfile.GFile(path, "rb") as file:
        steps = [step_of(line) for line in file.read().splitlines()]
    return int(max([step for step in steps if math.isfinite(step)], default=0))


def check_kinds(workdir: str) -> None:
    """Raises a `UserError` for a file where the run needs a folder, or the other way round."""
    for name in (*_FOLDERS, *_FILES):
        path = os.path.join(workdir, name)
        wanted, is_folder = name in _FOLDERS, tf.io.gfile.isdir(path)
        if tf.io.gfile.exists(path) and wanted != is_folder:
            kinds = ("a file", "a folder")
            raise UserError(
                f"{path} is {kinds[is_folder]}, where the run writes {kinds[wanted]}: move it away"
            )


def check_contents(workdir: str) -> None:
    """Looks at the files that the run is about to cut or replace.

    Raises:
        UserError: one holds what no run has written.
        OpError, OSError: one cannot be read.
    """
    path = os.path.join(workdir, "metrics.jsonl")
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path, "rb") as file:
            *whole, last = file.read().split(b"\n")
        foreign = [line for line in whole if not (_is_cut(line) or math.isfinite(step_of(line)))]
        if foreign or not (whole or _is_cut(last)):
            raise UserError(f"{path} holds what is no metrics of a run: move it away")
    path = os.path.join(workdir, "trainer.json")
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read().strip(b"\0")  # a machine that went down leaves zeros
        if content and not _holds(path, _NOTES["trainer.json"]):
            raise UserError(f"{path} does not say who trains here: move it away")


def _is_cut(line: bytes) -> bool:
    """Whether a line of metrics.jsonl may be the beginning of one."""
    return line[: len(_BEGINNING)] == _BEGINNING[: len(line)] or b"\0" in line


def is_empty_folder(path: str) -> bool:
    """Whether there is a folder with nothing in it."""
    return tf.io.gfile.isdir(path) and not tf.io.gfile.listdir(path)


def step_of(line: bytes) -> float:
    """The step of a line of metrics.jsonl; infinity for one that is damaged."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # cut, by a full disk or a machine that went down
        return float("inf")
