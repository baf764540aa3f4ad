"""Saving and restoring: the last few checkpoints, every M-th for good, a broken one passed over."""

from __future__ import annotations

import os
import re

import tensorflow as tf
from absl import logging

from bdm_tf.errors import UserError

_KEPT, _BEST = "kept", "best"


class Checkpoints:
    """The checkpoints of a workdir, `checkpoints/ckpt-STEP`.

    Args:
        checkpoint: what is saved.
        directory: the folder `checkpoints`.
        keep: how many of the newest are kept.
        keep_every: steps between checkpoints that are copied to `checkpoints/kept` and never
            deleted; 0 keeps none.
        in_background: write while training goes on: `save` copies the variables to the host's
            memory and returns.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        directory: str,
        keep: int,
        keep_every: int,
        in_background: bool = False,
    ):
        self._checkpoint, self._directory, self._keep_every = checkpoint, directory, keep_every
        self._manager = tf.train.CheckpointManager(checkpoint, directory, max_to_keep=keep)
        self._in_background, self._keep = in_background, keep
        self._awaited: str | None = None

    def save(self, step: int) -> str:
        """Writes the checkpoint of a step, perhaps in the background, and returns its path.

        Raises:
            OpError: it cannot be written, or the one before could not be.
        """
        self.wait()
        self._awaited = f"{self._directory}/ckpt-{step}"
        options = tf.train.CheckpointOptions(
            experimental_enable_async_checkpoint=self._in_background,
            experimental_write_callbacks=[self._written],
        )
        path = self._manager.save(checkpoint_number=step, options=options)
        if not self._in_background:
            self.wait()
        return path

    def wait(self) -> None:
        """Returns when what was saved is on disk.

        Raises:
            OpError: it could not be written.
        """
        if self._in_background:
            self._checkpoint.sync()
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            raise tf.errors.UnknownError(None, None, f"{awaited} was not written")

    def _written(self, path: str) -> None:
        """Called, perhaps in the background, when a checkpoint is whole."""
        if self._keep_every and checkpoint_step(path) % self._keep_every == 0:
            _copy(path, os.path.join(self._directory, _KEPT))
        self._remove_older(checkpoint_step(path))
        self._awaited = None

    def _remove_older(self, step: int) -> None:
        """Removes all but the newest up to a step: TensorFlow's manager forgets some in a kill."""
        indices = tf.io.gfile.glob(os.path.join(self._directory, "ckpt-*.index"))
        older = sorted((i for i in indices if checkpoint_step(i) <= step), key=checkpoint_step)
        for index in older[: -self._keep]:
            for file in [index, *tf.io.gfile.glob(index[: -len("index")] + "data-*")]:
                tf.io.gfile.remove(file)

    def restore_from(self, path: str) -> None:
        """Restores one checkpoint."""
        self._checkpoint.restore(path).assert_consumed()

    def restore(self) -> str | None:
        """Restores the newest checkpoint that can be read and returns its path; None if none is.

        Raises:
            UserError: there are checkpoints, but none of them can be read.
        """
        paths = saved_checkpoints(self._directory)
        for path in reversed(paths):
            try:
                self.restore_from(path)
                return path
            # A cut file raises IndexError, a flipped bit DataLossError, a lost file NotFoundError.
            except (tf.errors.OpError, LookupError, ValueError, AssertionError, OSError) as error:
                reason = str(error).splitlines()[0][:300]
                logging.warning("checkpoint %s is broken and passed over: %s", path, reason)
        if paths:
            raise UserError(
                f"none of the {len(paths)} checkpoints in {self._directory} can be read; move the "
                "folder away to start again"
            )
        return None

    def latest(self) -> str | None:
        """Path of the newest checkpoint."""
        paths = saved_checkpoints(self._directory)
        return paths[-1] if paths else None


def saved_checkpoints(directory: str) -> list[str]:
    """Paths of a folder's complete checkpoints, `kept` and `best` included, oldest first."""
    found = {}
    for folder in (os.path.join(directory, _BEST), os.path.join(directory, _KEPT), directory):
        for index in tf.io.gfile.glob(os.path.join(folder, "ckpt-*.index")):
            found[checkpoint_step(index)] = index[: -len(".index")]
    return [found[step] for step in sorted(found)]


def copy_to_best(path: str) -> None:
    """Copies a checkpoint to `checkpoints/best`, where training does not delete it."""
    directory = os.path.dirname(path)
    if os.path.basename(directory) in (_KEPT, _BEST):
        directory = os.path.dirname(directory)
    _copy(path, os.path.join(directory, _BEST))


def keep_one_best(directory: str, step: int) -> None:
    """Removes all checkpoints from the folder `best` but that of a step."""
    for index in tf.io.gfile.glob(os.path.join(directory, _BEST, "ckpt-*.index")):
        if checkpoint_step(index) != step:
            for file in [index, *tf.io.gfile.glob(index[: -len("index")] + "data-*")]:
                tf.io.gfile.remove(file)


def _copy(path: str, folder: str) -> None:
    if os.path.dirname(path) != folder:
        tf.io.gfile.makedirs(folder)
        files = sorted(tf.io.gfile.glob(path + ".*"))  # the index last: then it is whole
        if not files or not files[-1].endswith(".index"):
            raise FileNotFoundError(f"{path} is no longer there")
        for file in files:
            tf.io.gfile.copy(file, os.path.join(folder, os.path.basename(file)), overwrite=True)


def checkpoint_step(path: str) -> int:
    """The step in a checkpoint's name."""
    match = re.search(r"ckpt-(\d+)(\.index)?$", path)
    if match is None:
        raise UserError(f"{path} is not the name of a checkpoint (ckpt-STEP)")
    return int(match.group(1))


def weights_to_start_from(path: str) -> str:
    """Path of the checkpoint that `--init_from` names: itself, or a workdir's newest.

    Raises:
        UserError: there is none.
    """
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
        UserError: there is none.
    """
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
