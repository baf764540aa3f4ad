"""From a SavedModel and a user's images to a file with what was drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from bdm_tf.classes import asked_for
from bdm_tf.image_grids import without_tensor_float_32, write_grid, writing_drawn
from bdm_tf.restoration.functions import REPEATS
from bdm_tf.restoration.images import read_images
from bdm_tf.restoration.tasks import Task
from bdm_tf.saved_models import (
    check_steps,
    classes_of,
    load_saved_model,
    model_info,
    warn_of_few_steps,
)
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import check_replaces, check_writable, write_npz
from bdm_tf.system.interrupts import interruptible

_ARRAYS = ("samples", "input", "known", "truth")


def restore_to_file(
    saved_model: str,
    make_task: Callable[[dict], Task],
    output: str,
    *,
    input: str,
    truth: str | None = None,
    degrade: bool = False,
    num_samples: int = 4,
    seed: int = 0,
    num_steps: int = 0,
    repeats: int = REPEATS,
    label: str | None = None,
    guidance: float | None = None,
) -> None:
    """Draws images from what is seen of a user's; prints how near the truth they are, if it is
    known.

    Args:
        saved_model: the folder of a SavedModel.
        make_task: makes a task of the model's `model_info`.
        output: a grid (.png), a row an image: input, known part, samples, truth; or arrays (.npz)
            of these names, `samples` uint8 `[N, num_samples, H, W, C]`.
        input: see `read_images`.
        truth: of the originals, likewise.
        degrade: whether the input is the original, to be degraded first.
        num_samples: for each image. Number s of image i depends on (seed, i, s) alone; its noise is
            that of image i of the seed `[s, seed]`.
        seed: of the samples' noise, and of what degrading adds.
        num_steps: sampling steps; 0 is the model's own number.
        repeats: how often each step is taken, see `Sampler`; a variation takes each once.
        label: the class of all images by name or number; None tells the model of none.
        guidance: how much the label is obeyed; None is the model's own.

    Raises:
        UserError: the model restores no images, or something that was given is none or cannot be
            read or written.
    """
    check_writable(output)
    check_replaces(output, _ARRAYS)
    info = model_info(saved_model)
    _check_restores(saved_model, info)
    check_steps(info, num_steps, "--num_steps")
    warn_of_few_steps(info, num_steps)
    labels = _labels(saved_model, info, label, guidance)
    task, shape = make_task(info), info["image_shape"]
    originals: np.ndarray | None = None
    if degrade:
        originals = read_images("--input", input, shape, resizes=True)
        seen = task.observe(originals, seed)
    else:
        way_out = "; --degrade takes originals" if tuple(task.size) != tuple(shape[:2]) else ""
        size = (*task.size, shape[2])
        seen = read_images("--input", input, size, task.resizes, way_out=way_out)
        if truth:
            originals = read_images("--truth", truth, shape, resizes=True)
    if originals is not None and len(originals) != len(seen):
        raise UserError(
            f"--truth={truth} has {len(originals)} image(s), --input={input} {len(seen)}: each "
            "needs its own"
        )
    model = load_saved_model(saved_model)
    arguments: dict = {"num_steps": tf.constant(num_steps), **labels}
    if task.repeats:
        arguments["repeats"] = tf.constant(repeats)
    samples = _draw(
        partial(getattr(model, task.name), **arguments),
        task.arguments(seen),
        num_samples=num_samples,
        seed=seed,
        chunk_size=info["chunk_size"],
    )
    known = task.known_part(model, seen)
    shown = {"input": seen, "known": known}
    truths = {} if originals is None else {"truth": originals}
    with writing_drawn(output, samples):
        if output.lower().endswith(".npz"):
            write_npz(output, {"samples": samples, **shown, **truths}, compressed=True)
        else:
            columns = [_enlarged(seen, shape), known, *samples.swapaxes(0, 1), *truths.values()]
            grid = np.stack(columns, axis=1)
            write_grid(grid.reshape(-1, *shape), output, columns=len(columns))
    print(f"wrote {num_samples} sample(s) of each of {len(seen)} image(s) to {output}")
    if originals is not None:
        print(table(originals, samples, task.baselines(seen) | {"known part": known}))


def _check_restores(saved_model: str, info: dict) -> None:
    """Raises a `UserError` if a SavedModel has no functions that restore images."""
    reason = info.get("cannot_restore")
    if reason is None:
        raise UserError(
            f"--saved_model={saved_model} was made before images could be restored: export it again"
        )
    if reason:
        raise UserError(f"--saved_model={saved_model} cannot restore images: {reason}")


def _labels(
    saved_model: str, info: dict, label: str | None, guidance: float | None
) -> dict[str, tf.Tensor]:
    """What a SavedModel's functions are given of a label.

    Raises:
        UserError: it takes none, not this one, or not without.
    """
    classes = classes_of(info)
    number, guidance = asked_for(classes, "--", label, guidance)
    if classes is None:
        return {}
    if number is None and guidance is not None:
        raise UserError(f"--guidance={guidance} is of a label: give --label=CLASS, too")
    if not info.get("restores_by_label"):
        if number is None:
            return {}
        raise UserError(
            f"--saved_model={saved_model} was made before images could be restored by label: "
            "export it again"
        )
    if number is None and not classes.dropout:
        raise UserError(
            "the model does not know images without a label (train.label_dropout was 0): give "
            "--label=CLASS"
        )
    if number is None:
        return {"guidance": tf.constant(1.0)}
    given = {"label": tf.constant([number])}
    return given if guidance is None else given | {"guidance": tf.constant(guidance)}


def table(truth: np.ndarray, samples: np.ndarray, others: dict[str, np.ndarray]) -> str:
    """PSNR in dB and SSIM, means over the images, of single samples, their mean, and others.

    Args:
        truth: uint8 `[N, H, W, C]`.
        samples: uint8 `[N, S, H, W, C]`.
        others: uint8 `[N, H, W, C]` by name.
    """
    count = samples.shape[1]
    rows = {"one sample": np.mean([scores(truth, samples[:, s]) for s in range(count)], axis=0)}
    if count > 1:
        mean = np.rint(samples.mean(1)).astype(np.uint8)
        rows[f"mean of {count}"] = scores(truth, mean)
    rows |= {name: scores(truth, images) for name, images in others.items()}
    lines = [f"{name:12} {psnr:6.2f} {ssim:6.3f}" for name, (psnr, ssim) in rows.items()]
    return "\n".join([f"{'':12} {'PSNR':>6} {'SSIM':>6}", *lines])


def scores(truth: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean PSNR and SSIM, `[2]`."""
    side = min(11, *truth.shape[1:3])  # of SSIM's window
    psnr = tf.image.psnr(truth, images, max_val=255)
    ssim = tf.image.ssim(truth, images, max_val=255, filter_size=side)
    return np.array([np.mean(psnr), np.mean(ssim)])


def _draw(
    function: Callable,
    arrays: dict[str, np.ndarray],
    *,
    num_samples: int,
    seed: int,
    chunk_size: int,
) -> np.ndarray:
    """Samples uint8 `[N, num_samples, H, W, C]`; arrays without dimensions are of all images."""
    count = max(len(array) for array in arrays.values() if array.ndim)
    drawn = []
    with without_tensor_float_32(), tqdm(total=num_samples * count, unit="img", delay=2) as bar:
        for start in range(0, count, chunk_size):
            part = {
                name: tf.constant(array[start : start + chunk_size] if array.ndim else array)
                for name, array in arrays.items()
            }
            part["first"] = tf.constant(start)
            for sample in range(num_samples):
                drawn.append(interruptible(function, **part, seed=tf.constant([sample, seed])))
                bar.update(len(drawn[-1]))
    chunks = [np.stack(drawn[i : i + num_samples], 1) for i in range(0, len(drawn), num_samples)]
    return np.concatenate(chunks)


def _enlarged(images: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    factors = shape[0] // images.shape[1], shape[1] // images.shape[2]
    return images.repeat(factors[0], axis=1).repeat(factors[1], axis=2)
