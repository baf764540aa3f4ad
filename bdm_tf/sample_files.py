"""From a SavedModel to files with images that it drew."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from bdm_tf.classes import EACH
from bdm_tf.image_grids import without_tensor_float_32, write_film, write_grid, writing_drawn
from bdm_tf.relations import UNRELATED, Relation
from bdm_tf.saved_models import (
    check_steps,
    chosen_classes,
    load_saved_model,
    model_info,
    warn_of_few_steps,
)
from bdm_tf.system.errors import UserError, check_counts, check_seed
from bdm_tf.system.files import check_replaces, check_writable, write_npz
from bdm_tf.system.interrupts import interruptible
from bdm_tf.system.paths import check_ending, expanded

_FRAMES = 8
_SHOWN = 4  # images of a trajectory
_ON_THE_WAY, _IN_A_ROW = 8, 16


def sample_to_file(
    saved_model: str,
    output: str | None,
    *,
    num_images: int | None,
    seed: int,
    first: int,
    num_steps: int,
    label: str | None = None,
    guidance: float | None = None,
    relation: Relation = UNRELATED,
    trajectory: str | None = None,
    num_frames: int | None = None,
) -> None:
    """Draws images from a SavedModel into a grid (.png) or an array `images` (.npz).

    Args:
        saved_model, output: where it is and what to write, or None; `~` is the home folder.
        num_images: how many; None is 64, or 8 a class if there is to be a row of each, or 8 on the
            way between two.
        seed, first: of the noise, and the number of the first image.
        num_steps: of sampling; 0 is the model's own.
        label: a class by name or number, "each" for all in turn, a row a class; None draws them as
            the training images have them.
        guidance: None is the model's own.
        relation: what their noise has in common.
        trajectory: a .png or .gif of the way to the first four of them, or None.
        num_frames: of that way, evenly over the steps, at least 2; None is 8, or as many as there
            are.

    Raises:
        UserError: `saved_model` is no SavedModel of this library, lacks what is asked for or does
            not take that many steps, the images do not fit into memory, or a file cannot be
            written; what was drawn is then in the system's temporary folder, if that has room.
    """
    saved_model = expanded("saved_model", saved_model)
    output = output and expanded("output", output)
    trajectory = trajectory and expanded("trajectory", trajectory)
    if not (output or trajectory):
        raise UserError("there is nothing to write: give an output, or a trajectory")
    check_ending("--output", output, (".png", ".npz"))
    check_ending("--trajectory", trajectory, (".png", ".gif"))
    check_seed("--seed", seed)
    check_counts("sample_to_file", 0, first=first, num_steps=num_steps)
    if num_images is not None:
        check_counts("sample_to_file", 1, num_images=num_images)
    for path in (output, trajectory):
        check_writable(path)
    check_replaces(output, ["images"])
    info = model_info(saved_model)
    check_steps(info, num_steps, "--num_steps")
    warn_of_few_steps(info, num_steps)
    if (relation or trajectory) and "draws_noise" not in info:
        raise UserError(
            f"--saved_model={saved_model} was made before it could show its way to an image or "
            "share noise: export it again"
        )
    relation.check(info, label)
    most_frames = (num_steps or info["num_steps"]) + 1
    if num_frames is not None and num_frames > most_frames:
        raise UserError(
            f"--num_frames={num_frames}: {most_frames - 1} steps have {most_frames} frames, with "
            "both ends; give fewer, or more --num_steps"
        )
    if num_images is None:
        same = relation.share == "start" and not info["draws_noise"]  # but for their class
        of_class = 1 if same else 8
        num_images = of_class * len(info.get("class_names", ())) if label == EACH else 64
        num_images = num_images if relation.towards is None else _ON_THE_WAY
    classes = chosen_classes(info, label, guidance, num_images)
    model = load_saved_model(saved_model)
    # Of version 0.1.0, which did not say: its default.
    configured = info["config"].get("export_saved_model.chunk_size", 16)
    chunk_size = int(info.get("chunk_size", configured))

    def draw(function: Callable, place: int, count: int, **more):
        """Calls a function of the SavedModel for `count` images, `place` the first's."""
        if guidance is not None:
            more["guidance"] = tf.constant(guidance)
        if classes is not None:
            more["label"] = tf.constant(classes[place : place + count])
        return interruptible(
            function,
            seed=tf.constant([0, seed]),
            num_images=tf.constant(count),
            num_steps=tf.constant(num_steps),
            first=tf.constant(first + place),
            **more,
            **relation.given(first, place, count, num_images),
        )

    if output:
        images = _room(num_images, info["image_shape"])
        with without_tensor_float_32(), tqdm(total=num_images, unit="img", delay=2) as bar:
            while bar.n < num_images:
                start = first + bar.n
                count = min(chunk_size - start % chunk_size, num_images - bar.n)
                if relation:
                    drawn = draw(model.trajectory, bar.n, count)["x_hat"][-1]
                else:
                    drawn = draw(model.sample, bar.n, count)
                images[bar.n : bar.n + count] = drawn
                bar.update(count)
        columns = None
        if label == EACH and not num_images % len(info["class_names"]):
            columns = num_images // len(info["class_names"])
        elif relation.towards is not None and num_images <= _IN_A_ROW:
            columns = num_images
        with writing_drawn(output, images):
            if output.lower().endswith(".npz"):
                write_npz(output, {"images": images}, compressed=True)
            else:
                write_grid(images, output, columns=columns)
        print(f"wrote {num_images} images to {output}")
    if trajectory:
        frames = tf.constant(num_frames or min(_FRAMES, most_frames))
        count = min(_SHOWN, num_images, chunk_size)
        with without_tensor_float_32():
            seen = draw(model.trajectory, 0, count, num_frames=frames)
        z_t, x_hat = (seen[name].numpy() for name in ("z_t", "x_hat"))
        with writing_drawn(trajectory, x_hat[-1]):
            _write_trajectory(z_t, x_hat, trajectory)
        times = ", ".join(f"{t:.2g}" for t in seen["t"].numpy())
        print(f"wrote the way of {count} images to {trajectory}: t = {times}")


def _write_trajectory(z_t: np.ndarray, x_hat: np.ndarray, path: str) -> None:
    """Writes uint8 `[F, N, H, W, C]` of each: as .png two rows an image, z_t above x_hat, a column
    a frame; as .gif a row an image, z_t beside x_hat.
    """
    if path.lower().endswith(".gif"):
        pairs = np.stack([z_t, x_hat], axis=2)
        write_film(pairs.reshape(len(z_t), -1, *z_t.shape[2:]), path, columns=2)
    else:
        rows = np.stack([z_t, x_hat], axis=0).transpose(2, 0, 1, 3, 4, 5)
        write_grid(rows.reshape(-1, *z_t.shape[2:]), path, columns=len(z_t))


def _room(num_images: int, image_shape: Sequence[int]) -> np.ndarray:
    try:
        return np.empty((num_images, *image_shape), np.uint8)
    except MemoryError as error:
        size = num_images * math.prod(image_shape) / 2**30
        raise UserError(
            f"--num_images={num_images} needs {size:.0f} GiB of memory: draw fewer at a time, the "
            "next with --first"
        ) from error
