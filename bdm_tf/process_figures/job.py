"""From models' configurations to a file with a figure; no network is built, no weights are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gin
import matplotlib
import numpy as np
import tensorflow as tf

from bdm_tf import config
from bdm_tf.data.sources import load_splits
from bdm_tf.diffusion.process import BlurringProcess
from bdm_tf.model import use_config
from bdm_tf.noise import PRIOR, image_seeds, normal
from bdm_tf.process_figures.drawing import draw_process, draw_snr, draw_spaces, encoded
from bdm_tf.saved_models import use_saved_config
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import check_writable, write_atomically, writing

_PARTS = {"process": "Model.process", "image_shape": "Model.image_shape", "data": "train.data"}
# Reading one image must not decode a whole data set first.
_STREAMED = ("TFDSImages.max_memory_gb = 0.0", "ImageFolder.max_memory_gb = 0.0")


@dataclass(frozen=True)
class Subject:
    """A row or a panel: a model's name, its process, and its data source or None."""

    name: str
    process: BlurringProcess
    data: Any = None


def draw_to_file(
    kind: str,
    output: str,
    *,
    gin_files: Sequence[Sequence[str]] = (),
    workdirs: Sequence[str] = (),
    saved_models: Sequence[str] = (),
    gin_params: Sequence[str] = (),
    data_dir: str | None = None,
    num_times: int = 8,
    image: int = 0,
    num_images: int = 1,
    seed: int = 0,
) -> None:
    """Draws what the processes of some models do: of gin files, then workdirs, then SavedModels.

    Args:
        kind: "process", "spaces" or "snr", see `draw_process`, `draw_spaces` and `draw_snr`.
        output: a .png, .pdf or .svg.
        gin_files: for each model its gin files.
        workdirs, saved_models: models that are named by a folder.
        gin_params: bindings that are laid over every model's.
        data_dir: handed to `data.load`.
        num_times: columns, evenly from t = 0 to t = 1.
        image: number of the first image in the training split of the first model's data set.
        num_images: images from there on.
        seed: of the noise `[0, seed]`.

    Raises:
        UserError: a model or an image cannot be read, the models are for images of different
            shapes (unless `kind` is "snr"), or `output` cannot be written.
    """
    check_writable(output)
    named: list[tuple[str, Callable[[], Any]]] = [
        *((config.run_name(f), partial(config.parse, f, [])) for f in gin_files),
        *((_tail(path, 1), partial(use_config, path)) for path in workdirs),
        *((_tail(path, 2), partial(use_saved_config, path)) for path in saved_models),
    ]
    subjects = [_read(name, configure, gin_params, data_dir) for name, configure in named]
    names, processes = [s.name for s in subjects], [s.process for s in subjects]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # no matplotlibrc: it may ask for LaTeX, or other sizes
        if kind == "snr":
            figure = draw_snr(names, processes)
        else:
            images = _images(subjects, data_dir, image, num_images)
            seeds = image_seeds(tf.constant([0, seed]), image, num_images)
            white = normal(seeds, PRIOR, images.shape[1:]).numpy()
            draw = draw_process if kind == "process" else draw_spaces
            figure = draw(names, processes, images, np.linspace(0.0, 1.0, num_times), white)
        with writing(output):
            write_atomically(output, encoded(figure, output.rpartition(".")[2].lower()))
    print(f"wrote {output}")


@gin.register("figure")
def _subject(name: str, data_dir: str | None, process, data=None, image_shape=None) -> Subject:
    """A model, whose process is made for the images of its data, if it does not say for which."""
    if image_shape is None and data is None:
        raise UserError(f"{name} has no data set: its configuration lacks train.data")
    shape = image_shape or load_splits(data, data_dir, "skip")[0].image_shape
    built = process(image_shape=tuple(shape))
    if built.needs_spectrum:
        raise UserError(
            f"{name} has noise that follows the training images' spectrum, which only training "
            "measures: leave it out"
        )
    return Subject(name, built, data)


def _read(
    name: str, configure: Callable[[], Any], gin_params: Sequence[str], data_dir: str | None
) -> Subject:
    configure()
    config.overlay([], [*gin_params, *_STREAMED])
    found = config.parameters(config.operative_text())
    if "Model.process" not in found:
        raise UserError(
            f"{name} is no whole model: it has no Model.process. Join it to the file that it is "
            "given after, for instance gin/digits.gin+gin/base/ihdm.gin"
        )
    parts = [f"figure.{part} = {found[key]}" for part, key in _PARTS.items() if key in found]
    config.overlay([], parts)
    try:
        return gin.get_configurable("figure")(name, data_dir)
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the process of {name} cannot be built: {reason}") from error


def _images(
    subjects: Sequence[Subject], data_dir: str | None, first: int, count: int
) -> np.ndarray:
    """uint8 `[count, H, W, C]` from the first model's training split, fit for all models."""
    owner = subjects[0]
    if owner.data is None:
        raise UserError(f"{owner.name} has no data set: its configuration lacks train.data")
    images = load_splits(owner.data, data_dir, "skip")[0]
    for subject in subjects:
        shape = subject.process.image_shape
        if shape != tuple(images.image_shape):
            raise UserError(
                f"{subject.name} is for images of shape {shape}, the data set of {owner.name} has "
                f"{tuple(images.image_shape)}: a figure shows the same image in every row"
            )
    if first + count > images.num_images:
        raise UserError(
            f"--image={first} --num_images={count}: the training split of {owner.name} has "
            f"{images.num_images} images, 0 to {images.num_images - 1}"
        )
    return images.eval_images(first + count)[first:]


def _tail(path: str, parts: int) -> str:
    return "/".join(os.path.normpath(path).split(os.sep)[-parts:])
