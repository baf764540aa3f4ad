"""SavedModels of this library: what they say of themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from bdm_tf import config
from bdm_tf.classes import EACH, Classes, asked_for, in_turn
from bdm_tf.system.errors import UserError, first_line, is_whole
from bdm_tf.system.paths import check_literal

INFO = os.path.join("assets.extra", "model_info.json")
_NEEDED: dict[str, Any] = {
    "image_shape": list,
    "step": int,
    "ema_decay": (float, int, type(None)),
    "sampler": str,
    "num_steps": int,
    "config": dict,
    "versions": dict,
}
# What they must be besides, where they are there.
_SOUND: dict[str, Callable[[Any], Any]] = {
    "image_shape": lambda v: len(v) == 3 and all(is_whole(n) and n > 0 for n in v),
    "chunk_size": lambda v: is_whole(v) and v > 0,
    "class_names": lambda v: isinstance(v, list) and v and all(isinstance(n, str) for n in v),
    "class_counts": lambda v: isinstance(v, list) and all(is_whole(n) for n in v),
    "allowed_num_steps": lambda v: isinstance(v, list) and len(v) == 2 and is_whole(v[0]),
}


def model_info(path: str, name: str = "--saved_model") -> dict:
    """What a SavedModel of this library says of itself; `name` is what the path was given as.

    Raises:
        UserError: `path` is none.
    """
    check_literal(name, path)
    if not tf.saved_model.contains_saved_model(path):
        raise UserError(f"{name}={path} {no_saved_model(path)}")
    file = os.path.join(path, INFO)
    if not tf.io.gfile.exists(file):
        raise UserError(
            f"{name}={path} has no model_info.json: it is of another library, or damaged"
        )
    try:
        with tf.io.gfile.GFile(file) as content:
            info = json.load(content)
        missing = [k for k, kind in _NEEDED.items() if not isinstance(info.get(k, ...), kind)]
        if "class_names" in info:
            missing += [key for key in ("class_counts", "label_dropout") if key not in info]
    except (ValueError, AttributeError, RecursionError, tf.errors.OpError) as error:
        reason = first_line(error)
        raise UserError(f"{name}={path} is damaged ({INFO}: {reason}); export it again") from error
    if not missing:
        missing = [key for key, check in _SOUND.items() if key in info and not check(info[key])]
    if missing:
        lacking = ", ".join(sorted(missing))
        raise UserError(f"{name}={path} is damaged ({INFO} lacks {lacking}); export it again")
    return info


def no_saved_model(path: str) -> str:
    """What a path is that leads to no SavedModel, and where one may be, in words."""
    if not tf.io.gfile.exists(path):
        return "is not there"
    inside = os.path.join(path, "saved_model")
    if tf.saved_model.contains_saved_model(inside):
        return f"is not a SavedModel, but {inside} is"
    return "is not a SavedModel"


def use_saved_config(path: str) -> dict[str, str]:
    """Makes the configuration of a SavedModel gin's current one and returns its parameters.

    Raises:
        UserError: `path` is none, or its configuration is damaged.
    """
    values = model_info(path)["config"]
    text = "".join(f"{name} = {value}\n" for name, value in values.items())
    try:
        config.parse_text(text, skip_unknown=True)
    except UserError as error:
        raise UserError(
            f"--saved_model={path} is damaged ({INFO}: {error.message}); export it again"
        ) from error
    return values


def load_saved_model(path: str, name: str = "--saved_model"):
    """A SavedModel of this library; `name` is what the path was given as.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        return tf.saved_model.load(path)
    except Exception as error:  # whatever TensorFlow makes of what is not there
        if isinstance(error, MemoryError) or "alloc" in str(error).lower():
            reason = first_line(error)
            raise UserError(f"{name}={path} does not fit into memory here: {reason}") from error
        raise UserError(
            f"{name}={path} is damaged: {first_line(error)}; export it again"
        ) from error


def check_steps(info: dict, num_steps: int, name: str) -> None:
    """Raises a `UserError` if a model does not take that many steps.

    Args:
        info: its `model_info`.
        num_steps: sampling steps; 0 is the model's own number.
        name: what they were given as.
    """
    fewest, most = info.get("allowed_num_steps", (1, None))
    if num_steps and not fewest <= num_steps <= (most or num_steps):
        raise UserError(
            f"{name}={num_steps}: this model takes {info['other_num_steps']}; 0 is its own number"
        )


_FEW_STEPS = 20  # with which the paper's models give static
_FEW_WITHOUT_NOISE = 100  # the same, where no new noise takes the place of errors


def warn_of_few_steps(info: dict, num_steps: int) -> None:
    """Warns where black and white pixels may come in place of images.

    A model that predicts eps divides by alpha_t, and long steps do not forget its errors; a bound
    for each frequency holds them (docs/few_steps.md).

    Args:
        info: its `model_info`, or what `SampleSettings.about` says.
        num_steps: sampling steps; 0 is the model's own number.
    """
    asked = num_steps or info["num_steps"]
    bound = info.get("projection", "NoProjection")
    at_risk = info.get("parametrisation") == "PredictEps" and bound in ("NoProjection", "PixelClip")
    few = _FEW_WITHOUT_NOISE if info.get("sampler") == "DDIMSampler" else _FEW_STEPS
    if at_risk and (asked < info["num_steps"] or asked <= few):
        logging.warning(
            "%d steps may be too few: this model samples in %d, predicts eps, and %s does not hold "
            "its errors. What does, for each frequency: "
            '--gin_param="sample.projection = @SpectralClip()" of training, or of python -m '
            "bdm_tf.export",
            asked,
            info["num_steps"],
            bound,
        )


def classes_of(info: dict) -> Classes | None:
    """The classes of a SavedModel's images, if it was trained with labels."""
    if "class_names" not in info:
        return None
    names = tuple(info["class_names"])
    return Classes(names, tuple(info["class_counts"]), info["label_dropout"])


def chosen_classes(
    info: dict, label: str | None, guidance: float | None, num_images: int
) -> np.ndarray | None:
    """The classes of images to be drawn, int32 `[num_images]`; None for those the model draws.

    Args:
        info: what the SavedModel says of itself.
        label, guidance: see `sample_to_file`.
        num_images: how many images.

    Raises:
        UserError: the model knows no labels, or not this one; or takes no such guidance.
    """
    classes = classes_of(info)
    of_each = label == EACH and classes is not None
    number, _ = asked_for(classes, "--", None if of_each else label, guidance)
    if number is not None:
        return np.full(num_images, number, np.int32)
    if classes is None or label is None:
        return None
    count = len(classes)
    if num_images < count:
        raise UserError(f"--label={EACH} draws {count} classes, more than {num_images} images")
    return in_turn(np.arange(num_images, dtype=np.int32), num_images, count)
