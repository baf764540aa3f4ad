"""How finished models are sampled: sampler, steps, bounds, guidance."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from bdm_tf.classes import MOST_GUIDANCE
from bdm_tf.denoiser import Denoiser
from bdm_tf.priors import Prior
from bdm_tf.projections import NoProjection, PixelClip, Projection
from bdm_tf.sampling.sampler import Sampler
from bdm_tf.system.errors import (
    UserError,
    check_between,
    check_flags,
    check_interval,
    check_kind,
    is_whole,
)


@gin.register("sample")
class SampleSettings:
    """How finished models are sampled.

    Args:
        sampler: the sampler.
        num_steps: its number of steps, T.
        projection: bounds on the estimate of the image; None is `NoProjection`.
        clip: what `PixelClip` was called: True is that, False `NoProjection`.
        guidance: of images with labels: how much more they are obeyed than 1; see
            `Denoiser.given`.
        guidance_interval: the times `(low, high)` at which there is guidance; None for all.
        prior: where samples begin; None is where the model's own prior has it.

    Raises:
        UserError: both are given, or a part is of another kind.
    """

    def __init__(
        self,
        sampler: Sampler,
        num_steps: int = 1000,
        projection: Projection | None = None,
        clip: bool | None = None,
        guidance: float = 1.0,
        guidance_interval: Sequence[float] | None = None,
        prior: Prior | None = None,
    ):
        check_between("sample.guidance", guidance, 0, MOST_GUIDANCE)
        if guidance_interval is not None:
            check_interval("sample.guidance_interval", guidance_interval)
            guidance_interval = tuple(float(t) for t in guidance_interval)
        if clip is not None:
            check_flags("sample", clip=clip)
        if clip and projection is not None:
            raise UserError(
                "sample.clip = True is sample.projection = @PixelClip(); give one of the two "
                "(sample.clip = None takes the other back)"
            )
        if projection is None:
            projection = PixelClip() if clip else NoProjection()
        check_kind("sample.sampler", sampler, Sampler)
        check_kind("sample.projection", projection, Projection)
        if prior is not None:
            check_kind("sample.prior", prior, Prior)
        if not is_whole(num_steps):  # how many there may be, the sampler knows
            raise UserError(f"sample.num_steps={num_steps!r} must be a whole number")
        self.sampler, self.num_steps, self.projection = sampler, num_steps, projection
        self.guidance, self.guidance_interval = float(guidance), guidance_interval
        self.prior = prior

    def about(self, model) -> dict:
        """What a `Model` predicts, and how it is sampled."""
        return {
            "parametrisation": type(model.parametrisation).__name__,
            "sampler": type(self.sampler).__name__,
            "num_steps": self.num_steps,
            "projection": type(self.projection).__name__,
        }

    def draw(
        self,
        model,
        *,
        seed: tf.Tensor,
        first: int | tf.Tensor,
        count: int,
        num_steps: int | tf.Tensor | None = None,
        label: tf.Tensor | None = None,
        guidance: float | tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Draws images `first ... first + count - 1` of a seed with a model's averaged weights.

        Args:
            model: a `Model`.
            seed: int32 `[2]`.
            first: number of the first image.
            count: how many.
            num_steps: None for these settings'.
            label: of a model of images with labels: their classes int32 `[count]`, -1 for one that
                is drawn as the training images have them; None draws all.
            guidance: None for these settings'.

        Returns:
            float32 `[count, H, W, C]`; see `Sampler`.
        """
        return self.sampler(
            self.denoiser(model, seed, first, count, label=label, guidance=guidance),
            shape=(count, *model.image_shape),
            seed=seed,
            num_steps=self.num_steps if num_steps is None else num_steps,
            first=first,
        )

    def denoiser(
        self,
        model,
        seed: tf.Tensor,
        first: int | tf.Tensor,
        count: int,
        *,
        label: tf.Tensor | None = None,
        guidance: float | tf.Tensor | None = None,
    ) -> Denoiser:
        """A model's denoiser for images `first ... first + count - 1` of a seed; see `draw`."""
        denoiser = model.denoiser(self.projection)
        if model.classes is None:
            return denoiser
        drawn = model.classes.draw(seed, first, count)
        label = drawn if label is None else tf.where(label < 0, drawn, label)
        guidance = self.guidance if guidance is None else guidance
        return denoiser.given(label, guidance, self.guidance_interval)

    def evaluations(self, model) -> int:
        """Evaluations of a model's network that an image takes."""
        t = tf.convert_to_tensor(model.prior.time(model.process), tf.float32)
        steps = self.sampler.steps_below(model.denoiser(), t, self.num_steps)
        return self.sampler.evaluations(int(steps))

    def in_words(self, model) -> str:
        """How a model's samples are drawn."""
        sampler, projection = type(self.sampler).__name__, type(self.projection).__name__
        return f"{sampler}, {self.evaluations(model)} network evaluations, {projection}"
