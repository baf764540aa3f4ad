"""The files of a run: config.gin, metrics.jsonl, sample grids, TensorBoard logs."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator

import gin
import numpy as np
import tensorflow as tf
from absl import logging

from bdm_tf import config
from bdm_tf.comparison import differences
from bdm_tf.history import TrainingImages, check_unedited, read_history
from bdm_tf.image_grids import grid, write_grid
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import set_aside, sha256, why_not_written, write_atomically
from bdm_tf.system.paths import check_literal, expanded
from bdm_tf.training.claims import check_contents, check_free, check_kinds, is_empty_folder, step_of
from bdm_tf.training.lock import WorkdirLock


class Workdir:
    """A run's folder.

    Args:
        path: where it is.
        writes: False for a worker that is not the chief: then nothing is changed.

    Attributes:
        path, writes: see above.
        checkpoints: the folder of checkpoints.

    Raises:
        UserError: the folder cannot be written to, holds what is no run's under the names that a
            run would use, or another process trains there.
    """

    def __init__(self, path: str, writes: bool = True):
        check_literal("--workdir", path)
        self.path, self.writes = path, writes
        self.checkpoints = self._file("checkpoints")
        self._reason = self._file(".failed")
        self._writer: tf.summary.SummaryWriter | None = None
        self._restored_step = 0
        if not writes:
            return
        check_free(path, self.checkpoints)
        check_kinds(path)
        try:
            check_contents(path)
            self._was_there = tf.io.gfile.exists(path)
            tf.io.gfile.makedirs(self._file("samples"))
            write_atomically(self._file(".writable"), "")
            tf.io.gfile.remove(self._file(".writable"))
            self._lock = WorkdirLock(path)
            if tf.io.gfile.exists(self._reason):  # of the run before
                tf.io.gfile.remove(self._reason)
        except (tf.errors.OpError, OSError) as error:
            raise UserError(
                f"--workdir={path} cannot be written to: {why_not_written(error)}"
            ) from error

    @contextlib.contextmanager
    def beginning(self) -> Iterator[None]:
        """Around what leads to `claim`: if the run is refused, nothing of it is left behind."""
        try:
            yield
        except UserError:
            if self.writes and not tf.io.gfile.exists(self._file("config.gin")):
                self._leave()
            raise

    def _leave(self) -> None:
        """Removes what this process made before there was a run."""
        self.close()
        if tf.io.gfile.exists(self._file(".lock")):
            tf.io.gfile.remove(self._file(".lock"))
        if is_empty_folder(self._file("samples")):
            tf.io.gfile.rmtree(self._file("samples"))
        if not self._was_there and not tf.io.gfile.listdir(self.path):
            tf.io.gfile.rmtree(self.path)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around what writes to the folder, checkpoints too.

        Raises:
            UserError: what could not be written, and the way out.
        """
        if self.writes:
            self._lock.check()
        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            reason = why_not_written(error, "the same command goes on")
            raise UserError(
                f"--workdir={self.path} cannot be written to: {reason}. What was saved before is "
                "untouched"
            ) from error

    def close(self) -> None:
        """Lets another process train here."""
        if self.writes:
            self._lock.release()

    def leave_reason(self, reason: str) -> None:
        """Says why this worker fails in mid-step, where the others see only that it is lost."""
        with contextlib.suppress(tf.errors.OpError, OSError):
            write_atomically(self._reason, reason)

    def reason_left(self, seconds: float = 5.0) -> str | None:
        """What another worker left; it may be seen to be lost a moment before it has written."""
        end = time.monotonic() + seconds
        while not tf.io.gfile.exists(self._reason):
            if time.monotonic() > end:
                return None
            time.sleep(0.1)
        with tf.io.gfile.GFile(self._reason) as file:
            return file.read()

    def claim(
        self, text: str, images: TrainingImages | None = None, step: int = 0, allow_changes=False
    ) -> None:
        """Saves the operative configuration, or checks that it is the one the run began with.

        Args:
            text: the configuration.
            images: what is trained on.
            step: at which training is about to go on.
            allow_changes: whether it may go on with other values of what can be changed, and with
                other images; it is noted.

        Raises:
            UserError: the folder holds a run of another configuration; nothing is changed.
        """
        if not self.writes:
            return
        changed = self.check(text, allow_changes)
        history = read_history(self.path)
        is_unknown = step and history.images is None and images is not None
        if images and history.images not in (None, images):
            if not allow_changes:
                raise UserError(
                    f"--workdir={self.path} holds a run with other training images: "
                    f"{history.images} there, {images} here. Give those that it began with; or go "
                    "on with these by --allow_changes, with the prior and spectrum of the old "
                    "ones; or begin another run"
                )
            changed["images"] = [str(history.images), str(images)]
        checked = "as it was" if history.config else "which nothing could check"
        history.images = images or history.images
        history.config = text
        history.note(step, changed)
        history.write(self.path)
        is_lost = step and not tf.io.gfile.exists(self._file("config.gin"))
        self._write_config(text)
        if is_lost:
            logging.warning(
                "%s was missing and was written anew from this command's settings, %s",
                *(self._file("config.gin"), checked),
            )
        if is_unknown:
            logging.warning(
                "%s was missing and was written anew: it is unknown whether the run began with "
                "these training images, and what --allow_changes has changed",
                self._file("history.json"),
            )

    def check(self, text: str, allow_changes: bool = False) -> dict[str, list[str]]:
        """Raises what `claim` raises of the configuration, and returns what changes with it."""
        there = self._config_there()
        if there is None:
            return {}
        changed = differences(there, text)
        refused = [d for d in changed if not (allow_changes and d.changeable)]
        if refused:
            lines = "\n  ".join(map(str, refused))
            go_on = "add --allow_changes to go on from here with these, which is noted; "
            if not all(difference.changeable for difference in refused):
                go_on = ""
            raise UserError(
                f"--workdir={self.path} holds a run with another configuration:\n  {lines}\n"
                f"Give the parameters that the run began with; {go_on}or give another --workdir, "
                f"and there --init_from={self.path} to begin with its averaged weights."
            )
        return {d.name: [d.there, d.here] for d in changed}

    def _config_there(self) -> str | None:
        """The configuration of the run that is there; None if nothing says it."""
        path = self._file("config.gin")
        if not tf.io.gfile.exists(path):
            return read_history(self.path).config or None
        try:
            with tf.io.gfile.GFile(path) as file:
                there = file.read().removeprefix("\ufeff")  # which some editors put there
        except (UnicodeDecodeError, tf.errors.FailedPreconditionError):  # or a folder
            there = ""
        if not config.parameters(there):
            raise UserError(
                f"{path} is damaged; move it away, and the same command goes on with the "
                "parameters that it is given"
            )
        check_unedited(self.path, there)
        return there

    def _write_config(self, text: str) -> None:
        """Writes config.gin, unless it says the same already: its comments may be the user's."""
        path = self._file("config.gin")
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path) as file:
                if _statements(file.read()) == _statements(text):
                    return
        write_atomically(path, text)

    def forget_after(self, step: int, is_measured: bool = False) -> None:
        """Cuts metrics.jsonl back to a step: what comes later is about to be computed again.

        TensorBoard does the same once something new is written for it.

        Args:
            step: at which the run goes on.
            is_measured: whether it has lines up to that step, by its settings; if they are gone, a
                warning says so.
        """
        if not self.writes:
            return
        self._restored_step = step
        history = read_history(self.path)
        if history.move_back(step):
            history.write(self.path)
        path = self._file("metrics.jsonl")
        lines = []
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path, "rb") as file:
                lines = file.read().splitlines()
        kept = [line for line in lines if step_of(line) <= step]
        if is_measured and not kept:
            logging.warning("%s has nothing of the steps up to %d: it begins anew here", path, step)
        # A backup may be links to the same files, of which this one alone is written to in place.
        is_linked = "://" not in path and os.path.exists(path) and os.stat(path).st_nlink > 1
        if kept != lines or is_linked:
            write_atomically(path, b"".join(line + b"\n" for line in kept))

    def write_metrics(self, step: int, scalars: dict[str, float]) -> None:
        """Appends a line to metrics.jsonl and writes the scalars for TensorBoard."""
        if not self.writes:
            return
        with tf.io.gfile.GFile(self._file("metrics.jsonl"), "a") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        with self._summaries().as_default():
            for name, value in scalars.items():
                tf.summary.scalar(name, value, step=step)
        self._summaries().flush()

    def write_samples(self, step: int, images: np.ndarray) -> None:
        """Writes a grid of uint8 images to samples/ and for TensorBoard."""
        if not self.writes:
            return
        path = self._file("samples", f"step_{step:08d}.png")
        set_aside(path)
        write_grid(images, path)
        with self._summaries().as_default():
            tf.summary.image("samples", grid(images)[None], step=step)
        self._summaries().flush()

    def _summaries(self) -> tf.summary.SummaryWriter:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._file("logs"))
            # TensorBoard takes a folder's first start for the beginning and every later one for a
            # restart, at which it drops what it has from that step on.
            start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            event = tf.compat.v1.Event(
                wall_time=time.time(), step=self._restored_step + 1, session_log=start
            )
            resource = self._writer._resource  # no public name
            tf.raw_ops.ImportEvent(writer=resource, event=event.SerializeToString())
        return self._writer

    def _file(self, *names: str) -> str:
        return os.path.join(self.path, *names)


def _statements(text: str) -> list[str]:
    """The lines of a configuration that are no comments."""
    return sorted(line for line in text.splitlines() if line and not line.startswith("#"))


def pin_basis() -> None:
    """Makes gin's configuration name a user's matrix for good: absolute, and by its content.

    So a run can be used from any folder, and goes on with the matrix that it began with.
    """
    value = config.parameters(config.operative_text()).get("MatrixBasis.path", "None")
    if value == "None":
        return
    path = gin.query_parameter("MatrixBasis.path")
    if "://" not in path:
        path = os.path.abspath(expanded("MatrixBasis.path", path))
    if tf.io.gfile.exists(path):  # if not, building the basis says so
        config.bind("MatrixBasis.path", path)
        config.bind("MatrixBasis.sha256", sha256(path))
