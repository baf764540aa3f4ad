"""What all samplers share: the start, the grid of times, the loop."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.grids import TimeGrid, UniformGrid
from bdm_tf.noise import image_seeds, normal
from bdm_tf.parametrisations import PredictStep
from bdm_tf.system.errors import UserError, check_between, check_kind, is_whole

Memory = tuple[tf.Tensor, ...]


class Sampler(abc.ABC):
    """Draws images by `num_steps` steps from t = 1 to t = 0.

    Attributes:
        grid: the times of the steps.
        needs_spectrum: whether it needs the training images' `Spectrum`.

    Args:
        grid: the times of the steps; None is `UniformGrid`.
    """

    needs_spectrum = False

    def __init__(self, grid: TimeGrid | None = None):
        self.grid = UniformGrid() if grid is None else grid
        check_kind(f"{type(self).__name__}.grid", self.grid, TimeGrid)

    @abc.abstractmethod
    def step(
        self,
        denoiser: Denoiser,
        z_t: tf.Tensor,
        *,
        t: tf.Tensor,
        s: tf.Tensor,
        noise: tf.Tensor,
        is_last: tf.Tensor,
        memory: Memory,
    ) -> tuple[tf.Tensor, Memory]:
        """One step from t to s < t.

        Args:
            denoiser: a `Denoiser`.
            z_t: `[B, H, W, C]` in pixel space.
            t, s: scalars.
            noise: standard normal, shaped like `z_t`.
            is_last: a boolean scalar; whether s is 0.
            memory: what the step before returned, at first `self.memory`.

        Returns:
            u_s, coefficients `[B, H, W, C]`, and what the next step is to know.
        """

    def memory(self, shape: Sequence[int]) -> Memory:
        """What the first step, of images `shape`, knows of those before it."""
        return ()

    def evaluations(self, num_steps: int) -> int:
        """Network evaluations that an image takes in so many steps."""
        return num_steps

    def __call__(
        self,
        denoiser: Denoiser,
        *,
        shape: Sequence[int],
        seed: tf.Tensor,
        num_steps: int | tf.Tensor,
        first: int | tf.Tensor = 0,
        start: tuple[tf.Tensor, float | tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Draws images `first ... first + n - 1` of a seed.

        Args:
            denoiser: a `Denoiser`.
            shape: `(n, H, W, C)`, static.
            seed: int32 `[2]`.
            num_steps: T, an int or a scalar tensor; see `allowed_steps` and `evaluations`.
            first: index of the first image; image i's noise depends on (seed, i) alone.
            start: z_t, `[n, H, W, C]` in pixel space, and t, a scalar in (0, 1], to begin at
                instead of a draw of the prior at 1. Of the T steps those above t are left out, and
                the first begins at t.

        Returns:
            float32 `[n, H, W, C]`, in [-1, 1] as far as the network keeps to it.

        Raises:
            UserError: this sampler or this number of steps is not for this model (if it is a
                tensor, an InvalidArgumentError when the graph runs), the images have another
                shape or numbers that cannot be, or the start is none for this model.
        """
        self.check(denoiser, None if tf.is_tensor(num_steps) else num_steps)
        shape = tuple(int(n) if is_whole(n) else n for n in shape)
        seed = _checked_draw(denoiser.process, shape, seed, first)
        count, *image_shape = shape
        process = denoiser.process
        seeds = image_seeds(seed, first, count)
        num_steps = self._checked(process, num_steps)

        def step(k, z_t, memory):
            times = self._times(denoiser, tf.stack([k, k - 1]), num_steps)
            t, s = tf.unstack(tf.minimum(times, latest))
            noise = normal(seeds, num_steps + 1 - k, image_shape)
            given = {"t": t, "s": s, "noise": noise, "is_last": k == 1, "memory": memory}
            u_s, memory = self._checked_step(denoiser, z_t, given)
            return k - 1, process.basis.to_pixel(u_s), memory

        if start is None:
            z, latest = denoiser.prior.draw(process, seeds, image_shape), tf.constant(1.0)
            steps = num_steps
        else:
            z, latest = self._checked_start(process, start, shape)
            below = self._times(denoiser, tf.range(1, num_steps), num_steps) < latest
            steps = 1 + tf.math.count_nonzero(below, dtype=tf.int32)
        z = tf.ensure_shape(z, shape)
        _, x, _ = tf.while_loop(
            lambda k, *_: k > 0, step, [steps, z, self.memory(shape)], parallel_iterations=1
        )
        return x

    def try_step(self, denoiser: Denoiser) -> None:
        """Builds the graph of a step, so that what is wrong with it shows before training."""
        shape = (1, *denoiser.process.image_shape)

        def step(z_t, number, is_last):
            memory = self.memory(shape)
            given = {"t": number, "s": number, "noise": z_t, "is_last": is_last, "memory": memory}
            return self._checked_step(denoiser, z_t, given)

        specs = [tf.TensorSpec(shape), tf.TensorSpec([]), tf.TensorSpec([], tf.bool)]
        tf.function(step, autograph=False).get_concrete_function(*specs)

    def _checked_step(self, denoiser: Denoiser, z_t: tf.Tensor, given: dict):
        """`step`, which may be a user's own.

        Raises:
            UserError: it does not return what it must.
        """
        name, found = type(self).__name__, self.step(denoiser, z_t, **given)
        if not isinstance(found, tuple) or len(found) != 2:
            raise UserError(
                f"{name}.step must return (u_s, memory), with the memory that it was given if it "
                "needs none"
            )
        u_s, memory = found
        if not z_t.shape.is_compatible_with(u_s.shape):
            raise UserError(f"{name}.step must return u_s of shape {z_t.shape}, not {u_s.shape}")
        kinds = [[(v.shape, v.dtype) for v in values] for values in (memory, given["memory"])]
        if kinds[0] != kinds[1]:
            raise UserError(
                f"{name}.step must return a memory like that which {name}.memory begins with: "
                f"{len(kinds[1])} tensors of the same shapes"
            )
        return u_s, memory

    def allowed_steps(self, process) -> tuple[int, int | None]:
        """The fewest and the most steps that the sampler takes; None for any number."""
        return 1, None

    def about_steps(self, process) -> str:
        """What another number of steps than the model's own does, in words."""
        fewest, most = self.allowed_steps(process)
        if most is None:
            return "any number of steps"
        if fewest == most:
            return f"{most} steps alone: the network knows no other step; others are refused"
        return f"{fewest} to {most} steps, spread over the {most} that it learnt; more are refused"

    def check(
        self, denoiser: Denoiser, num_steps: int | None = None, name: str = "num_steps"
    ) -> None:
        """Raises a `UserError` if the model, or this many steps of it, are not for this sampler.

        Args:
            denoiser: the model.
            num_steps: T, or None if it is not known yet.
            name: the parameter that it came from.
        """
        if not hasattr(self, "grid"):
            raise UserError(f"{type(self).__name__}.__init__ must call super().__init__(grid)")
        self.check_model(denoiser)
        self.grid.check(denoiser.process)
        self._check_num_steps(denoiser.process, num_steps, name)

    def check_model(self, denoiser: Denoiser) -> None:
        """Raises a `UserError` if the model is not for this sampler, whatever its grid."""
        if isinstance(denoiser.parametrisation, PredictStep):
            raise UserError(
                f"{type(self).__name__} does not go with PredictStep: sample with IHDMSampler"
            )

    def _check_num_steps(self, process, num_steps: int | None, name: str) -> None:
        fewest, most = self.allowed_steps(process)
        if num_steps is not None and not (is_whole(num_steps) and num_steps < 2**31):
            raise UserError(
                f"{name}={num_steps!r} must be a whole number, at least {fewest}, below 2^31"
            )
        if num_steps is not None and not fewest <= num_steps <= (most or num_steps):
            raise UserError(
                f"{name}={num_steps} does not go with {type(self).__name__} and this model, "
                f"which take {self.about_steps(process)}"
                if most
                else f"{name}={num_steps} must be at least {fewest}"
            )

    def _checked_start(self, process, start, shape: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        z_t, t = start
        if self.allowed_steps(process)[1] is not None:
            raise UserError(
                f"start: {type(self).__name__} and this model take {self.about_steps(process)}, "
                "and begin at t = 1 alone"
            )
        if not tf.is_tensor(t):
            check_between("start's t", t, 0, 1, without_low=True)
        z_t, t = tf.convert_to_tensor(z_t, tf.float32), tf.convert_to_tensor(t, tf.float32)
        if z_t.shape != shape or t.shape != ():
            raise UserError(f"start has shapes {z_t.shape} and {t.shape}, must be {shape} and ()")
        return z_t, t

    def _checked(self, process, num_steps) -> tf.Tensor:
        fewest, most = self.allowed_steps(process)
        num_steps = tf.convert_to_tensor(num_steps, tf.int32)
        message = f"num_steps: this model takes {self.about_steps(process)}"
        checks = [tf.debugging.assert_greater_equal(num_steps, fewest, message)]
        if most is not None:
            checks.append(tf.debugging.assert_less_equal(num_steps, most, message))
        with tf.control_dependencies([check for check in checks if check is not None]):
            return tf.identity(num_steps)

    def _times(self, denoiser: Denoiser, k: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
        """Times number k of `num_steps`; of those that were learnt, where they were counted."""
        places = tf.cast(k, tf.float32) / tf.cast(num_steps, tf.float32)
        _, most = self.allowed_steps(denoiser.process)
        if most is not None:
            return tf.round(places * most) / most
        return self.grid.times(denoiser.process, places, denoiser.spectrum)


def _checked_draw(process, shape: tuple, seed, first) -> tf.Tensor:
    """The seed as a tensor, if with the others it is what `Sampler` takes."""
    if len(shape) != 4 or not is_whole(shape[0]) or shape[0] < 1:
        raise UserError(f"{shape=} must be (n, H, W, C), n at least 1")
    if shape[1:] != tuple(process.image_shape):
        raise UserError(f"{shape=}, but the model's images are of shape {process.image_shape}")
    if not tf.is_tensor(first) and not (is_whole(first) and 0 <= first < 2**31 - shape[0]):
        raise UserError(f"{first=} must be a whole number, and the last image's below 2^31 - 1")
    if not tf.is_tensor(seed):
        numbers = np.asarray(seed)
        if numbers.shape != (2,) or not all(is_whole(n) and 0 <= n < 2**31 for n in numbers):
            raise UserError(f"{seed=} must be two whole numbers from 0 to 2^31 - 1")
        return tf.constant(numbers, tf.int32)
    if seed.shape != (2,) or seed.dtype != tf.int32:
        raise UserError(f"seed is {seed.dtype.name} {seed.shape}, must be int32 [2]")
    return seed


def needs_noise(sampler: Sampler, denoiser: Denoiser) -> None:
    """Raises a `UserError` if the process has no noise."""
    if denoiser.process.is_deterministic:
        raise UserError(
            f"{type(sampler).__name__} needs noise, but sigma_t is 0: sample with MomentumSampler "
            "or NaiveSampler"
        )


def needs_continuous_time(sampler: Sampler, denoiser: Denoiser) -> None:
    """Raises a `UserError` if the process has K steps, between which nothing was defined."""
    if denoiser.process.num_steps is not None:
        raise UserError(
            f"{type(sampler).__name__} is for processes in continuous time; this one's blur has "
            f"{denoiser.process.num_steps} steps: sample with AncestralSampler or DDIMSampler"
        )
