"""history.json of a workdir: the images that a run began with, and what was changed since."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

import tensorflow as tf

from bdm_tf.system.errors import UserError
from bdm_tf.system.files import write_atomically


@dataclass(frozen=True)
class TrainingImages:
    """What training images are known again by: their number, and a key of what they are."""

    number: int
    key: str

    def __str__(self) -> str:
        return f"{self.number} images ({self.key[:8]})"


@dataclass
class History:
    """What befell a run.

    Attributes:
        images: what it is trained on now; None for a run of version 0.1.0.
        changes: one for each time that something was changed: `{"step": 3000, "changed":
            {"train.learning_rate": ["0.001", "0.0001"]}}`.
    """

    images: TrainingImages | None = None
    changes: list[dict] = field(default_factory=list)

    def note(self, step: int, changed: dict[str, list[str]]) -> None:
        """Adds what changes at a step: each thing with what it was and what it is."""
        change = {"step": step, "changed": changed}
        if changed and change not in self.changes[-1:]:
            self.changes.append(change)

    def move_back(self, step: int) -> bool:
        """Says of changes after a step that they came there, as the run is back at it.

        Returns:
            Whether there are any.
        """
        later = [change for change in self.changes if change["step"] > step]
        for change in later:
            change["step"] = step
        return bool(later)

    def write(self, workdir: str) -> None:
        """Writes it into a workdir.

        Raises:
            OpError, OSError: it cannot be written.
        """
        write_atomically(_path(workdir), json.dumps(asdict(self), indent=2) + "\n")


def read_history(workdir: str) -> History:
    """What befell the run of a workdir; nothing, if nothing is noted.

    Raises:
        UserError: it is damaged.
    """
    path = _path(workdir)
    if not tf.io.gfile.exists(path):
        return History()
    try:
        with tf.io.gfile.GFile(path) as file:
            found = json.load(file)
        images = found["images"] and TrainingImages(**found["images"])
        changes = [{"step": int(c["step"]), "changed": c["changed"]} for c in found["changes"]]
        return History(images, changes)
    except (ValueError, KeyError, TypeError, tf.errors.FailedPreconditionError) as error:
        raise UserError(
            f"{path} is damaged: move it away, and the training command writes it anew, without "
            "the changes that were noted there"
        ) from error


def _path(workdir: str) -> str:
    return os.path.join(workdir, "history.json")
