"""Which folders are splits, by what people call them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from absl import logging

from bdm_tf.data.images import NAMED
from bdm_tf.system.errors import UserError

TRAIN_NAMES = ("train", "training")
EVAL_NAMES = ("test", "testing", "val", "valid", "validation", "dev", "eval")


def _called(names: tuple[str, ...]) -> re.Pattern:
    """Finds one of the names as a word of its own, or before `set`, `data` and the like."""
    return re.compile(
        rf"(?<![a-z])({'|'.join(names)})(set|split|data|images|imgs|s?daten|[ab])?(?![a-z])"
    )


_LIKE_TRAIN = _called(TRAIN_NAMES)
_LIKE_EVAL = _called((*EVAL_NAMES, "evaluation", "hold[-_ ]?out", "held[-_ ]?out"))


def find_split(folder: str, subfolders: list[str], names: tuple[str, ...]) -> str | None:
    """The first of the names that a subfolder has, in any case, as it is spelt; None for none.

    Raises:
        UserError: several subfolders have it.
    """
    for name in names:
        found = [subfolder for subfolder in subfolders if subfolder.lower() == name]
        if len(found) > 1:
            raise UserError(f"{folder} holds {' and '.join(found)}: one only may be called {name}")
        if found:
            return found[0]
    return None


def check_no_splits(folder: str, paths: list[str]) -> None:
    """Looks for what may be splits below a folder whose images are all to be trained on.

    A lone evaluation split may be a class: it is warned of.

    Args:
        folder: that folder, which has no training split.
        paths: its images.

    Raises:
        UserError: some are called like a training split, and others like an evaluation split.
    """
    below: set[str] = set()
    for where in {os.path.dirname(path) for path in paths}:
        while len(where) > len(folder) and where not in below:
            below.add(where)
            where = os.path.dirname(where)
    names = {where: os.path.basename(where).lower() for where in sorted(below)}
    train = [where for where, name in names.items() if _LIKE_TRAIN.search(name)]
    held_out = [w for w, name in names.items() if _LIKE_EVAL.search(name) and w not in train]
    wanted = os.path.join(folder, "train")
    if train and held_out:
        parents = {os.path.dirname(where) for where in train}
        way_out = f"move them to {wanted} and {os.path.join(folder, 'test')}"
        if len(parents) == 1 and names[train[0]] in TRAIN_NAMES:
            way_out = f"give --data_dir={parents.pop()}"
        raise UserError(
            f"{train[0]!r} and {held_out[0]!r} look like splits, and both would be trained on: "
            f"{way_out}, or rename one if they are none"
        )
    if held_out:
        logging.warning(
            "trained on, though called like an evaluation split: %s; if it is one, move the other "
            "images to %s",
            some_of(held_out),
            wanted,
        )


def some_of(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - NAMED
    shown = (repr(name) if "," in name else name for name in names[:NAMED])
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
