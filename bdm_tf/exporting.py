"""Writes SavedModels, and ends runs with one."""

from __future__ import annotations

import contextlib
import json
import os

import gin
import keras
import tensorflow as tf

import bdm_tf
from bdm_tf import config
from bdm_tf.classes import EACH
from bdm_tf.comparison import ema_decay, sampling_parameters
from bdm_tf.export_folders import check_free, only_export_to, partial_of
from bdm_tf.exported_model import ExportedModel
from bdm_tf.fitted import check_measured
from bdm_tf.model import Model, build_sample_settings
from bdm_tf.restoration.functions import why_not
from bdm_tf.sample_files import sample_to_file
from bdm_tf.sample_settings import SampleSettings
from bdm_tf.saved_models import INFO, model_info
from bdm_tf.system.errors import UserError, check_counts
from bdm_tf.system.files import remove_folder, replace_folder, set_aside, why_not_written
from bdm_tf.system.paths import check_literal, expanded

FINAL_IMAGES = 100


@gin.register("export_saved_model")
def chosen_chunk_size(chunk_size: int = 16) -> int:
    """gin's `export_saved_model.chunk_size`; see `ExportedModel`."""
    check_counts("export_saved_model", 1, chunk_size=chunk_size)
    return chunk_size


def export(model: Model, step: int, export_dir: str, overwrite: bool = False) -> None:
    """Writes the SavedModel of a model; it appears under its name only when whole.

    Args:
        model: with its averaged weights; its configuration says how it is sampled.
        step: the training step they come from.
        export_dir: where to write it; `~` is the home folder.
        overwrite: replace what is there.

    Raises:
        UserError: `export_dir` exists and is not to be overwritten, or cannot be written.
    """
    export_dir = expanded("export_dir", export_dir)
    if export_dir and "://" not in export_dir:
        export_dir = os.path.normpath(export_dir)
    check_literal("export_dir", export_dir)
    check_counts("export", 0, step=step)
    check_free(export_dir, overwrite)
    with model.configured():
        chunk_size = gin.get_configurable("export_saved_model")()
    settings = build_sample_settings(model)
    check_measured(model, settings)
    try:
        with only_export_to(export_dir):
            check_free(export_dir, overwrite)  # again: it may have come to be there
            _write(model, settings, int(step), chunk_size, export_dir)
    except (OSError, tf.errors.OpError) as error:
        reason = why_not_written(error)
        raise UserError(f"the SavedModel cannot be written to {export_dir}: {reason}") from error


def _write(
    model: Model, settings: SampleSettings, step: int, chunk_size: int, export_dir: str
) -> None:
    """Writes a SavedModel beside where it goes, and moves it there."""
    partial = partial_of(export_dir)
    try:
        if tf.io.gfile.exists(partial):
            remove_folder(partial)
        exported = ExportedModel(model, settings, chunk_size)
        info = os.path.join(partial, INFO)  # first: by it the rest is known as ours
        tf.io.gfile.makedirs(os.path.dirname(info))
        with tf.io.gfile.GFile(info, "w") as file:
            json.dump(_model_info(model, settings, step, chunk_size), file, indent=2)
        tf.saved_model.save(exported, partial, signatures=exported.signatures())
        replace_folder(partial, export_dir)
    except Exception:
        with contextlib.suppress(OSError, tf.errors.OpError):
            remove_folder(partial)
        raise


def check_finish(workdir: str) -> None:
    """Raises a `UserError` for what `finish_run` would find wrong, which is hours later."""
    check_free(os.path.join(workdir, "saved_model"), overwrite=True)
    gin.get_configurable("export_saved_model")()


def finish_run(model: Model, step: int, workdir: str) -> None:
    """Ends a run: `saved_model/`, unless it is there already, and a grid drawn from it."""
    export_dir = os.path.join(workdir, "saved_model")
    output = os.path.join(workdir, "samples", "final.png")
    if not _is_exported(step, export_dir):
        set_aside(output)
        if tf.io.gfile.exists(output):  # of an earlier last step
            tf.io.gfile.remove(output)
        print(f"exporting {export_dir}", flush=True)
        export(model, step, export_dir, overwrite=True)
    if tf.io.gfile.exists(output) and tf.io.gfile.stat(output).length:
        print(f"step {step} is done already: {export_dir}")
        return
    print(f"drawing {output}", flush=True)
    each = model.classes and len(model.classes) <= FINAL_IMAGES
    sample_to_file(
        export_dir,
        output,
        num_images=FINAL_IMAGES,
        seed=0,
        first=0,
        num_steps=0,
        label=EACH if each else None,
    )


def _is_exported(step: int, export_dir: str) -> bool:
    """Whether a SavedModel is of this step, and samples as gin's current configuration says."""
    parts = (INFO, "saved_model.pb", os.path.join("variables", "variables.index"))
    if not all(tf.io.gfile.exists(os.path.join(export_dir, part)) for part in parts):
        return False
    try:
        info = model_info(export_dir)
    except UserError:  # damaged
        return False
    there, here = (
        {k: v for k, v in sampling_parameters(values).items() if not k.startswith("train.")}
        for values in (info["config"], config.parameters(config.operative_text()))
    )
    return info["step"] == step and there == here


def _about_classes(model: Model, settings: SampleSettings) -> dict:
    if model.classes is None:
        return {}
    return {
        "class_names": list(model.classes.names),
        "class_counts": list(model.classes.counts),
        "label_dropout": model.classes.dropout,
        "guidance": settings.guidance,
        "guidance_interval": settings.guidance_interval,
    }


def _data_set(values: dict[str, str]) -> str:
    """The name of the training images' data set, of a run's parameters."""
    source = values.get("train.data", "")
    if "Downsampled" in source:
        source = values.get("Downsampled.source", "")
    if "TFDSImages" in source:
        return values["TFDSImages.name"].strip("'\"")
    return "a folder of images"


def _model_info(model: Model, settings: SampleSettings, step: int, chunk_size: int) -> dict:
    with model.configured():
        values = config.parameters(config.operative_text())
    return {
        "data_set": _data_set(values),
        "image_shape": list(model.image_shape),
        "step": step,
        "changes": model.changes,
        "ema_decay": ema_decay(values),
        "process": type(model.process).__name__,
        "objective": type(model.objective).__name__,
        "prior": type(model.prior).__name__,
        **settings.about(model),
        "allowed_num_steps": settings.sampler.allowed_steps(model.process),
        "other_num_steps": settings.sampler.about_steps(model.process),
        "draws_noise": settings.sampler.draws_noise and not model.process.is_deterministic,
        "grid": type(settings.sampler.grid).__name__,
        "evaluations": settings.evaluations(model),
        "chunk_size": int(chunk_size),
        **_about_classes(model, settings),
        "basis": type(model.process.basis).__name__,
        "cannot_restore": why_not(model.denoiser(), settings.sampler),
        "restores_by_label": model.classes is not None,
        "versions": {
            "bdm_tf": bdm_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "config": values,
    }
