"""Saving and restoring: the last few checkpoints, every M-th for good, a broken one passed over."""

from __future__ import annotations

import contextlib
import os
import re

import tensorflow as tf
from absl import logging

from bdm_tf.system.checkpoint_files import (
    COPIES,
    KEPT,
    WAS_SAVED,
    BrokenCheckpoint,
    checkpoint_step,
    checkpoints_in,
    copy_checkpoint,
    move_checkpoint,
    saved_checkpoints,
)
from bdm_tf.system.errors import TryAgain, UserError, first_line
from bdm_tf.system.files import remove_folder, write_atomically

_BROKEN = "broken"
_SAVED = "This run was saved in checkpoints/. Without that folder it is not begun anew here.\n"

# What says nothing of a checkpoint: the file system does not answer, or not to this process.
_PASSING = (
    tf.errors.UnavailableError,
    tf.errors.ResourceExhaustedError,
    tf.errors.DeadlineExceededError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnauthenticatedError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
)


class Checkpoints:
    """The checkpoints of a workdir, `checkpoints/ckpt-STEP`.

    What a killed process left half-written is removed here.

    Args:
        checkpoint: what is saved.
        directory: the folder `checkpoints`.
        keep: how many of the newest are kept.
        keep_every: steps between checkpoints that are copied to `checkpoints/kept` and never
            deleted; 0 keeps none.
        in_background: write while training goes on: `save` copies the variables to the host's
            memory and returns.
        writes: False for a worker that is not the chief: `save` then does nothing.

    Raises:
        OpError: the folder cannot be written to.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        directory: str,
        keep: int,
        keep_every: int,
        in_background: bool = False,
        writes: bool = True,
    ):
        self._checkpoint, self._directory = checkpoint, directory
        self._keep, self._keep_every = keep, keep_every
        self._in_background, self._writes = in_background, writes
        self._awaited: str | None = None
        self._is_noted = False  # that a checkpoint was whole here
        if writes:
            _remove_unfinished(directory)
            self._manager = self._new_manager()

    def save(self, step: int, at_once: bool = False) -> str:
        """Writes the checkpoint of a step, perhaps in the background, and returns its path.

        Args:
            step: in the checkpoint's name.
            at_once: write it before returning in any case.

        Raises:
            OpError: it cannot be written; if that is in the background, the next `save` says so.
        """
        path = os.path.join(self._directory, f"ckpt-{step}")
        if not self._writes:
            return path
        self.wait()
        in_background = self._in_background and not at_once
        options = tf.train.CheckpointOptions(
            experimental_enable_async_checkpoint=in_background,
            experimental_write_callbacks=[self._keep_for_good],
        )
        self._manager.save(checkpoint_number=step, options=options)
        self._awaited = path if in_background else None
        return path

    def wait(self) -> None:
        """Returns when nothing is being written any more.

        If something could not be written in the background, nothing is from then on: TensorFlow
        keeps the reason to itself, but the next `save` is met by it too, unless it has gone.
        """
        if self._awaited is None:
            return
        self._checkpoint.sync()
        awaited, self._awaited = self._awaited, None
        if tf.train.latest_checkpoint(self._directory) != awaited:
            logging.warning("%s was not written; from now on, training waits for saving", awaited)
            self._in_background = False

    def restore_from(self, path: str) -> None:
        """Restores one checkpoint.

        Raises:
            BrokenCheckpoint: it cannot be read.
            UserError: it is whole, but of other variables.
            TryAgain: it cannot be read now.
        """
        try:
            self._checkpoint.restore(path).assert_consumed()
        except _PASSING as error:
            raise TryAgain(
                f"checkpoint {path} cannot be read now: {first_line(error)}; the same command "
                "goes on when it can"
            ) from error
        except (ValueError, AssertionError, tf.errors.InvalidArgumentError) as error:
            workdir = os.path.dirname(self._directory)
            raise UserError(
                f"checkpoint {path} is whole, but has other variables than this run, as from "
                f"another optimizer or version of Keras or the library: {first_line(error)}. Go "
                f"on with those, or begin anew from its averaged weights: --init_from={workdir} "
                "and another --workdir"
            ) from error
        # A cut file raises IndexError, a flipped bit DataLossError, a lost file NotFoundError.
        except (tf.errors.OpError, LookupError, OSError) as error:
            raise BrokenCheckpoint(f"checkpoint {path} is broken: {first_line(error)}") from error

    def restore(self) -> str | None:
        """Restores the newest checkpoint that can be read and returns its path; None if none is.

        Newer ones are broken, and moved to `checkpoints/broken`.

        Raises:
            UserError: there are checkpoints, but none of them can be read, or the newest that can
                be is of other variables.
            TryAgain: the newest cannot be read now.
        """
        paths, broken = saved_checkpoints(self._directory), []
        for path in reversed(paths):
            try:
                self.restore_from(path)
            except BrokenCheckpoint as error:
                broken.append(path)
                logging.warning("%s: passed over", error.message)
                continue
            for newer in broken:
                folder = os.path.join(self._directory, _BROKEN)
                move_checkpoint(newer, folder)
                logging.warning("%s was moved to %s", newer, folder)
            self._manager = self._new_manager()
            self._keep_for_good(path)
            return path
        if paths:
            folders = (os.path.join(self._directory, name) for name in COPIES)
            others = [path for f in folders for path in checkpoints_in(f) if path not in paths]
            copies = f", such as {' or '.join(others)}" if others else ""
            raise UserError(
                f"none of the {len(paths)} checkpoints in {self._directory} can be read: bring "
                f"sound ones back{copies}, or give another --workdir"
            )
        return None

    def latest(self) -> str | None:
        """Path of the newest checkpoint."""
        paths = saved_checkpoints(self._directory)
        return paths[-1] if paths else None

    def _new_manager(self) -> tf.train.CheckpointManager:
        """A manager that knows the checkpoints that are there, whatever TensorFlow noted last."""
        _write_state(self._directory)
        return tf.train.CheckpointManager(self._checkpoint, self._directory, max_to_keep=self._keep)

    def _keep_for_good(self, path: str) -> None:
        """Called, perhaps in the background, when a checkpoint is whole."""
        if not self._is_noted:  # once: a folder that is removed later is not to come back
            self._is_noted = True
            with contextlib.suppress(tf.errors.OpError, OSError):  # the disk may be full now
                write_atomically(os.path.join(os.path.dirname(self._directory), WAS_SAVED), _SAVED)
        if self._keep_every and checkpoint_step(path) % self._keep_every == 0:
            copy_checkpoint(path, os.path.join(self._directory, KEPT))


def _remove_unfinished(directory: str) -> None:
    """Removes what belongs to no whole checkpoint; what is newer than all of these is moved."""
    for folder in (directory, os.path.join(directory, KEPT)):
        if not tf.io.gfile.exists(folder):
            continue
        for name in tf.io.gfile.listdir(folder):
            path = os.path.join(folder, name.rstrip("/"))
            data = re.search(r"(.*/ckpt-\d+)\.data-\d+-of-\d+$", path)
            if re.search(r"/ckpt-\d+_temp$", path):
                remove_folder(path)
            elif data is not None and not tf.io.gfile.exists(f"{data.group(1)}.index"):
                is_old = checkpoint_step(data.group(1)) < _newest_step(directory)
                if is_old or folder != directory:
                    tf.io.gfile.remove(path)
                    continue
                broken = os.path.join(directory, _BROKEN)
                logging.warning("%s has no .index: it is moved to %s", path, broken)
                move_checkpoint(data.group(1), broken)
            elif re.search(r"/(ckpt-\d+\..*(tempstate\d+|\.partial)|checkpoint\.tmp\w+)$", path):
                tf.io.gfile.remove(path)


def _newest_step(directory: str) -> int:
    return max(map(checkpoint_step, checkpoints_in(directory)), default=0)


def _write_state(directory: str) -> None:
    """Writes the file `checkpoint`, in which TensorFlow notes what is there, from what is there."""
    state = os.path.join(directory, "checkpoint")
    names = [os.path.basename(p) for p in checkpoints_in(directory)]
    if names:
        lines = [f'model_checkpoint_path: "{names[-1]}"']
        lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
        # Without times, which must be later than the last, the manager would delete none of them.
        lines += [f"all_model_checkpoint_timestamps: {i + 1}" for i in range(len(names))]
        write_atomically(state, "\n".join([*lines, "last_preserved_timestamp: 0", ""]))
    elif tf.io.gfile.exists(state):
        tf.io.gfile.remove(state)
