"""What a sampler sees on its way from noise to an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.parametrisations import PredictStep
from bdm_tf.sampling.sampler import Sampler


class Trajectory(NamedTuple):
    """F frames of n images, from where samples begin to t = 0.

    Attributes:
        t: their times, float32 `[F]`; the last is 0.
        z_t: float32 `[F, n, H, W, C]` in pixel space; the last are the images.
        x_hat: what the network takes for the image, likewise. A model of `PredictStep` estimates
            none: there it is what it takes for z_t one step later.
    """

    t: tf.Tensor
    z_t: tf.Tensor
    x_hat: tf.Tensor


class Recorder(Sampler):
    """A sampler that draws what another one draws, and keeps some of what it sees.

    Args:
        sampler: the other one.
        num_steps: T, see `Sampler`.
        num_frames: how many frames, evenly over the steps, with both ends; 1 is the end alone.
    """

    def __init__(self, sampler: Sampler, num_steps: int | tf.Tensor, num_frames: int | tf.Tensor):
        super().__init__(sampler.grid)
        self._sampler, self._num_steps = sampler.of_steps(num_steps), num_steps
        self._num_frames = num_frames

    def trajectory(
        self,
        denoiser: Denoiser,
        *,
        shape: Sequence[int],
        seed: tf.Tensor,
        first: int | tf.Tensor = 0,
        start: tuple[tf.Tensor, float] | None = None,
        noise_of: tf.Tensor | None = None,
    ) -> Trajectory:
        """Draws images as `Sampler` does, which see, and what was seen on the way."""
        t = denoiser.prior.time(denoiser.process) if start is None else start[1]
        taken = self.steps_below(denoiser, tf.convert_to_tensor(t, tf.float32), self._num_steps)
        before = self._num_frames - 1  # the last frame is the image itself
        places = tf.range(before) / tf.maximum(before, 1)
        self._at = tf.cast(tf.round(places * tf.cast(taken, places.dtype)), tf.int32)
        x, (_, t, z_t, x_hat, *_) = self._run(
            denoiser,
            shape,
            seed=seed,
            num_steps=self._num_steps,
            first=first,
            start=start,
            noise_of=noise_of,
        )
        ends = [0.0], x[None], x[None]
        return Trajectory(*(tf.concat(parts, 0) for parts in zip((t, z_t, x_hat), ends)))

    def step(self, denoiser, z_t, *, t, memory, **given):
        number, *seen = memory[:4]
        is_seen = self._at == number

        def estimate():
            times = tf.fill([z_t.shape[0]], t)
            if isinstance(denoiser.parametrisation, PredictStep):
                return z_t + denoiser.predict(z_t, times)
            return denoiser.process.basis.to_pixel(denoiser(z_t, times)[1])

        x_hat = tf.cond(tf.reduce_any(is_seen), estimate, lambda: z_t)
        wide = is_seen[:, None, None, None, None]
        seen = [
            tf.where(m, new, old)
            for m, new, old in zip((is_seen, wide, wide), (t, z_t, x_hat), seen)
        ]
        u_s, rest = self._sampler.step(denoiser, z_t, t=t, memory=memory[4:], **given)
        return u_s, (number + 1, *seen, *rest)

    def memory(self, shape):
        count = tf.size(self._at)
        frames = tf.zeros([count, *shape])
        return tf.constant(0), tf.zeros([count]), frames, frames, *self._sampler.memory(shape)

    def _times(self, denoiser, k, num_steps):
        return self._sampler._times(denoiser, k, num_steps)

    def allowed_steps(self, process):
        return self._sampler.allowed_steps(process)

    def check(self, denoiser, num_steps=None, name="num_steps"):
        self._sampler.check(denoiser, num_steps, name)
