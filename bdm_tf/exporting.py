"""The SavedModel: sampling for someone who has only TensorFlow."""

from __future__ import annotations

import contextlib
import json
import os
import re

import gin
import keras
import tensorflow as tf

import bdm_tf
from bdm_tf import config
from bdm_tf.comparison import ema_decay, sampling_parameters
from bdm_tf.data.pipeline import to_uint8
from bdm_tf.fitted import check_measured
from bdm_tf.image_grids import sample_to_file
from bdm_tf.model import Model, SampleSettings, build_sample_settings
from bdm_tf.restoration.functions import restoring_functions, why_not
from bdm_tf.saved_models import INFO, model_info
from bdm_tf.system.errors import UserError, check_counts
from bdm_tf.system.files import remove_folder, rename_folder, why_not_written
from bdm_tf.system.keras_versions import raw_variables
from bdm_tf.system.paths import check_literal

FINAL_IMAGES = 100
# What a SavedModel's folder holds; Keras 2 adds the last. Half-written files have an ending more.
_WRITTEN = ("assets", "fingerprint", "saved_model", "variables", "keras_metadata")


class ExportedModel(tf.Module):
    """What is saved: `sample`, `predict`, `diffuse`, and what restores images, if the model can.

    Args:
        model: the trained model; its averaged weights are exported.
        settings: sampler and number of steps.
        chunk_size: images drawn at a time. Chunks are aligned and always full, so that an image
            is the same to the bit whatever else is asked for with it.
    """

    def __init__(self, model: Model, settings: SampleSettings, chunk_size: int):
        super().__init__()
        # Only the variables are tracked: Keras 3 layers with several inputs cannot be saved.
        self.weights = raw_variables(model.ema_network.trainable_variables)
        self.prior = dict(model.prior.variables)
        shape = model.image_shape
        chunk_shape = (chunk_size, *shape)
        # Not attributes: tf.Module would track the Keras layers inside.
        denoiser, process = model.denoiser(settings.projection), model.process
        sampler = settings.sampler
        default_steps = settings.num_steps

        def sample(seed, num_images, num_steps=0, first=0):
            checks = [
                tf.debugging.assert_positive(num_images, "num_images must be at least 1"),
                tf.debugging.assert_non_negative(num_steps, "num_steps must not be negative"),
                tf.debugging.assert_non_negative(first, "first must not be negative"),
                tf.debugging.assert_non_negative(seed, "seed must not be negative"),
                tf.debugging.assert_less_equal(
                    first, 2**31 - 1 - num_images, "first + num_images must be at most 2^31 - 1"
                ),
            ]
            with tf.control_dependencies(checks):
                steps = tf.where(num_steps == 0, default_steps, num_steps)
                first_chunk = first // chunk_size
            count = (first + num_images - 1) // chunk_size - first_chunk + 1

            def draw(i, drawn):
                start = (first_chunk + i) * chunk_size
                x = sampler(denoiser, shape=chunk_shape, seed=seed, num_steps=steps, first=start)
                return i + 1, drawn.write(i, to_uint8(x))

            drawn = tf.TensorArray(tf.uint8, size=count, element_shape=chunk_shape)
            _, drawn = tf.while_loop(
                lambda i, _: i < count, draw, [0, drawn], parallel_iterations=1
            )
            images = tf.reshape(drawn.stack(), [-1, *shape])
            offset = first - first_chunk * chunk_size
            return images[offset : offset + num_images]

        def spec(name, dtype, *dimensions):
            return tf.TensorSpec(dimensions, dtype, name=name)

        batch = (None, *shape)
        self.sample = tf.function(
            sample,
            input_signature=[
                spec("seed", tf.int32, 2),
                spec("num_images", tf.int32),
                spec("num_steps", tf.int32),
                spec("first", tf.int32),
            ],
            autograph=False,
        )
        self.predict = tf.function(
            lambda z_t, t: denoiser.network(z_t, t),
            input_signature=[spec("z_t", tf.float32, *batch), spec("t", tf.float32, None)],
            autograph=False,
        )
        self.diffuse = tf.function(
            lambda x, t, eps: process.diffuse(x, t, eps),
            input_signature=[
                spec("x", tf.float32, *batch),
                spec("t", tf.float32, None),
                spec("eps", tf.float32, *batch),
            ],
            autograph=False,
        )
        if not why_not(denoiser, sampler):
            restoring = restoring_functions(
                model.denoiser,
                sampler,
                settings.projection,
                num_steps=default_steps,
                chunk_size=chunk_size,
            )
            for name, function in restoring.items():  # vary, restore, inpaint
                setattr(self, name, function)

    def signatures(self) -> dict:
        """The named signatures, each with a dictionary as its result."""

        def named(function, result):
            return tf.function(
                lambda *args: {result: function(*args)},
                input_signature=function.input_signature,
                autograph=False,
            )

        zero = tf.constant(0)  # Python's defaults would not be saved

        def sample(seed, num_images, num_steps=zero, first=zero):
            return {"images": self.sample(seed, num_images, num_steps, first)}

        signature = self.sample.input_signature
        return {
            "serving_default": tf.function(sample, input_signature=signature, autograph=False),
            "predict": named(self.predict, "prediction"),
            "diffuse": named(self.diffuse, "z_t"),
        }


@gin.register
def export_saved_model(
    model: Model, step: int, export_dir: str, overwrite: bool = False, chunk_size: int = 16
) -> None:
    """Writes the SavedModel of a model; it appears under its name only when whole.

    Args:
        model: with its averaged weights.
        step: the training step they come from.
        export_dir: where to write it.
        overwrite: replace what is there.
        chunk_size: see `ExportedModel`.

    Raises:
        UserError: `export_dir` exists and is not to be overwritten, or cannot be written.
    """
    export_dir = os.fspath(export_dir)
    if export_dir and "://" not in export_dir:
        export_dir = os.path.normpath(export_dir)
    check_literal("export_dir", export_dir)
    check_counts("export", 0, step=step)
    check_counts("export_saved_model", 1, chunk_size=chunk_size)
    check_free(export_dir, overwrite)
    partial = _partial(export_dir)
    settings = build_sample_settings(model)
    check_measured(model, settings)
    try:
        if tf.io.gfile.exists(partial):
            remove_folder(partial)
        exported = ExportedModel(model, settings, chunk_size)
        info = os.path.join(partial, INFO)  # first: by it the rest is known as ours
        tf.io.gfile.makedirs(os.path.dirname(info))
        with tf.io.gfile.GFile(info, "w") as file:
            json.dump(_model_info(model, settings, int(step), chunk_size), file, indent=2)
        tf.saved_model.save(exported, partial, signatures=exported.signatures())
        if tf.io.gfile.exists(export_dir):
            remove_folder(export_dir)
        rename_folder(partial, export_dir)
    except Exception as error:
        with contextlib.suppress(OSError, tf.errors.OpError):
            remove_folder(partial)
        if not isinstance(error, (OSError, tf.errors.OpError)):
            raise
        reason = why_not_written(error)
        if isinstance(error, tf.errors.NotFoundError):
            reason = "it was removed meanwhile, as by another export to the same folder"
        raise UserError(f"the SavedModel cannot be written to {export_dir}: {reason}") from error


def export(model: Model, step: int, export_dir: str, overwrite: bool = False) -> None:
    """`export_saved_model` with what the model's configuration says of it."""
    with model.configured():
        gin.get_configurable("export_saved_model")(model, step, export_dir, overwrite)


def finish_run(model: Model, step: int, workdir: str) -> None:
    """Ends a run: `saved_model/`, unless it is there already, and a grid drawn from it."""
    export_dir = os.path.join(workdir, "saved_model")
    output = os.path.join(workdir, "samples", "final.png")
    if not _is_exported(step, export_dir):
        if tf.io.gfile.exists(output):  # of an earlier last step
            tf.io.gfile.remove(output)
        print(f"exporting {export_dir}", flush=True)
        export(model, step, export_dir, overwrite=True)
    if tf.io.gfile.exists(output) and tf.io.gfile.stat(output).length:
        print(f"step {step} is done already: {export_dir}")
        return
    print(f"drawing {output}", flush=True)
    sample_to_file(export_dir, output, num_images=FINAL_IMAGES, seed=0, first=0, num_steps=0)


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


def check_free(export_dir: str, overwrite: bool) -> None:
    """Raises a `UserError` if `export_dir` exists and must not be overwritten.

    What may be, if at all, is what this library wrote as a SavedModel, or as a part of one.
    """
    if not export_dir:
        raise UserError("--export_dir is empty: give the name of a folder")
    if tf.io.gfile.exists(export_dir) and not overwrite:
        raise UserError(f"--export_dir={export_dir} exists; give --overwrite or another folder")
    for path in (export_dir, _partial(export_dir)):
        if os.path.islink(path):
            raise UserError(f"{path} is a link: remove it, or give another folder")
        if tf.io.gfile.exists(path) and not _is_ours(path):
            raise UserError(
                f"{path} is no SavedModel of this library and is not replaced: move it away, or "
                "give another folder"
            )


def _partial(export_dir: str) -> str:
    return export_dir.rstrip("/") + ".partial"


def _is_ours(path: str) -> bool:
    """Whether a folder holds what `export_saved_model` writes, or a part of it, and no more."""
    if not tf.io.gfile.isdir(path):
        return False
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(path)]
    known = all(any(re.fullmatch(rf"{w}([._].*)?", name) for w in _WRITTEN) for name in names)
    if not known or not names:
        return known
    try:
        with tf.io.gfile.GFile(os.path.join(path, INFO)) as file:
            return "bdm_tf" in file.read()
    except (OSError, UnicodeDecodeError, tf.errors.OpError):
        return False


def _model_info(model: Model, settings: SampleSettings, step: int, chunk_size: int) -> dict:
    with model.configured():
        values = config.parameters(config.operative_text())
    return {
        "data_set": values.get("TFDSImages.name", "a folder of images").strip("'\""),
        "image_shape": list(model.image_shape),
        "step": step,
        "changes": model.changes,
        "ema_decay": ema_decay(values),
        "process": type(model.process).__name__,
        "objective": type(model.objective).__name__,
        "parametrisation": type(model.parametrisation).__name__,
        "prior": type(model.prior).__name__,
        "sampler": type(settings.sampler).__name__,
        "num_steps": settings.num_steps,
        "allowed_num_steps": settings.sampler.allowed_steps(model.process),
        "other_num_steps": settings.sampler.about_steps(model.process),
        "projection": type(settings.projection).__name__,
        "grid": type(settings.sampler.grid).__name__,
        "evaluations": settings.sampler.evaluations(settings.num_steps),
        "chunk_size": int(chunk_size),
        "basis": type(model.process.basis).__name__,
        "cannot_restore": why_not(model.denoiser(), settings.sampler),
        "versions": {
            "bdm_tf": bdm_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "config": values,
    }
