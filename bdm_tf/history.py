"""history.json of a workdir: what a run is of, and what was changed since it began."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

import tensorflow as tf

from bdm_tf.comparison import differences
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
        config: the operative configuration that it is trained with now; empty for a run of an
            earlier version.
    """

    images: TrainingImages | None = None
    changes: list[dict] = field(default_factory=list)
    config: str = ""

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
        return History(images, changes, str(found.get("config", "")))
    except (ValueError, KeyError, TypeError, tf.errors.FailedPreconditionError) as error:
        raise UserError(
            f"{path} is damaged: move it away, and the training command writes it anew, without "
            "the changes that were noted there"
        ) from error


def check_unedited(workdir: str, text: str) -> None:
    """Raises a `UserError` if a workdir's config.gin, `text`, is not what the run is trained with.

    How samples are drawn, and what else is no part of what is learnt, may be edited.
    """
    noted = read_history(workdir).config
    edited = differences(noted, text) if noted else []
    if edited:
        lines = "\n  ".join(f"{d.name}: {d.there} in training, {d.here} now" for d in edited)
        raise UserError(
            f"{os.path.join(workdir, 'config.gin')} was edited; a model stays what it was trained "
            f"as:\n  {lines}\nBring these values back."
        )


def _path(workdir: str) -> str:
    return os.path.join(workdir, "history.json")
