"""How the images of one command hang together: by a start or noise that they share, or a way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from absl import logging

from bdm_tf.classes import EACH
from bdm_tf.system.errors import UserError


@dataclass(frozen=True)
class Relation:
    """What the noise of images has in common; as it is made, nothing.

    Attributes:
        share: "noise": all have the noise of the steps of image 0; "start": all begin where that
            does; None: neither.
        towards: a seed; the starts lie on the way from that of image `first` of the images' seed
            to that of image `first` of this one, and the noise of the steps is shared.
    """

    share: str | None = None
    towards: int | None = None

    def __bool__(self) -> bool:
        return self.share is not None or self.towards is not None

    def check(self, info: dict, label: str | None) -> None:
        """Raises a `UserError` if a model's images of a class cannot hang together so.

        Args:
            info: its `model_info`.
            label: what was asked for, see `sample_to_file`.
        """
        if not self:
            return
        draws_noise, sampler = info["draws_noise"], info["sampler"]
        one_class = "class_names" not in info or label not in (None, EACH)
        if self.share == "noise" and not draws_noise:
            raise UserError(
                f"--share=noise: {sampler} draws no noise in its steps that could be shared; leave "
                "--share out, or give a model exported with AncestralSampler"
            )
        if self.share == "start" and not draws_noise and one_class:
            raise UserError(
                f"--share=start: {sampler} draws no noise in its steps, so that all images would "
                "be the same; give a model exported with AncestralSampler"
            )
        if self.towards is None:
            return
        if info["prior"] != "StandardNormal":
            raise UserError(
                f"--interpolate: samples of this model begin in {info['prior']}, not in noise, and "
                "there is nothing between two of these; give another model"
            )
        if not one_class:
            raise UserError(
                "--interpolate goes from one image to another of the same class: give --label=CLASS"
            )
        if draws_noise:
            logging.warning(
                "%s draws noise in its steps and soon forgets where it began: the images on the "
                "way may be nearly the same. A model exported with AngleSampler or DDIMSampler "
                "shows the way",
                sampler,
            )

    def given(self, first: int, place: int, count: int, num_images: int) -> dict[str, tf.Tensor]:
        """What a SavedModel's `trajectory` is given for `count` of `num_images` images.

        Args:
            first: number of the first image of all.
            place: of the first image of these among all.
        """
        if self.share is not None:
            return {"noise_of" if self.share == "noise" else "start_of": tf.constant(0)}
        if self.towards is None:
            return {}
        weight = np.linspace(0.0, 1.0, num_images, dtype=np.float32)[place : place + count]
        return {
            "start_of": tf.constant(first),
            "noise_of": tf.constant(first),
            "towards": tf.constant([0, self.towards]),
            "weight": tf.constant(weight),
        }


UNRELATED = Relation()
