"""What all samplers share: the start, the grid of times, the loop."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.grids import TimeGrid, UniformGrid
from bdm_tf.noise import AGAIN, image_seeds, normal, seeds_of
from bdm_tf.parametrisations import PredictStep
from bdm_tf.sampling.arguments import check_repeats, checked_seed, checked_start
from bdm_tf.system.errors import UserError, check_kind, is_whole

Memory = tuple[tf.Tensor, ...]


class Sampler(abc.ABC):
    """Draws images by `num_steps` steps from t = 1 to t = 0.

    Attributes:
        grid: the times of the steps.
        needs_spectrum: whether it needs the training images' `Spectrum`.
        draws_noise: whether its steps use the noise that they are given. Where not, an image
            depends on its start alone.

    Args:
        grid: the times of the steps; None is `UniformGrid`.
    """

    needs_spectrum = False
    draws_noise = True

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

    def of_steps(self, num_steps: int | tf.Tensor) -> Sampler:
        """This sampler, where a step must know of how many it is one."""
        return self

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
        repeats: int | tf.Tensor = 1,
        noise_of: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Draws images `first ... first + n - 1` of a seed.

        Args:
            denoiser: a `Denoiser`.
            shape: `(n, H, W, C)`, static.
            seed: int32 `[2]`.
            num_steps: T, an int or a scalar tensor; see `allowed_steps` and `evaluations`.
            first: index of the first image; image i's noise depends on (seed, i) alone.
            start: z_t, `[n, H, W, C]` in pixel space, and t, a scalar in (0, 1], to begin at
                instead of a draw of the prior at its time. Of the T steps those above t are left
                out, and the first begins at t.
            repeats: how often each step but the last is taken; in between, z_s is diffused to t
                again by q(u_t | u_s), as in RePaint (Lugmayr et al., 2022). What a projection knows
                of the image then reaches all of z_s before the next step.
            noise_of: int32 `[n]`, the numbers of the images whose noise of the steps is taken; None
                is each image's own.

        Returns:
            float32 `[n, H, W, C]`, in [-1, 1] as far as the network keeps to it.

        Raises:
            UserError: this sampler or this number of steps is not for this model (if it is a
                tensor, an InvalidArgumentError when the graph runs), the images have another
                shape or numbers that cannot be, or the start is none for this model.
        """
        given = {"seed": seed, "num_steps": num_steps, "first": first, "start": start}
        return self._run(denoiser, shape, repeats=repeats, noise_of=noise_of, **given)[0]

    def _run(
        self, denoiser: Denoiser, shape, *, seed, num_steps, first, start, repeats=1, noise_of=None
    ) -> tuple[tf.Tensor, Memory]:
        """What `__call__` returns, and the memory of the last step."""
        self.check(denoiser, None if tf.is_tensor(num_steps) else num_steps)
        shape = tuple(int(n) if is_whole(n) else n for n in shape)
        seed = checked_seed(denoiser.process, shape, seed, first)
        count, *image_shape = shape
        process = denoiser.process
        seeds = image_seeds(seed, first, count)
        step_seeds = seeds if noise_of is None else seeds_of(seed, noise_of)
        num_steps = self._checked(process, num_steps)
        once = not tf.is_tensor(repeats) and repeats == 1
        if not once:
            check_repeats(self, process, repeats)

        def step(left, z_t, memory):
            k, number = (left - 2) // repeats + 2, total + 1 - left
            times = self._times(denoiser, tf.stack([k, k - 1]), num_steps)
            t, s = tf.unstack(tf.minimum(times, latest))
            noise = normal(step_seeds, number, image_shape)
            given = {"t": t, "s": s, "noise": noise, "is_last": k == 1, "memory": memory}
            u_s, after = self._checked_step(denoiser, z_t, given)
            if once:
                return left - 1, process.basis.to_pixel(u_s), after

            def diffused():
                alpha_ts, sigma2_ts = process.transition(s=[s], t=[t])
                noise = normal(step_seeds, AGAIN - number, image_shape)
                return alpha_ts * u_s + tf.sqrt(sigma2_ts) * noise, memory

            again = (k > 1) & ((left - 2) % repeats > 0)
            u, memory = tf.cond(again, diffused, lambda: (u_s, after))
            return left - 1, process.basis.to_pixel(u), memory

        if start is None:
            start = denoiser.prior.draw(process, seeds, image_shape), denoiser.prior.time(process)
        z, latest = checked_start(self, process, start, shape)
        steps = self.steps_below(denoiser, latest, num_steps)
        z = tf.ensure_shape(z, shape)
        # Of all steps, those that are left; the last is taken once.
        total, left = ((n - 1) * repeats + 1 for n in (num_steps, steps))
        _, x, memory = tf.while_loop(
            lambda left, *_: left > 0, step, [left, z, self.memory(shape)], parallel_iterations=1
        )
        return x, memory

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

    def _checked(self, process, num_steps) -> tf.Tensor:
        fewest, most = self.allowed_steps(process)
        num_steps = tf.convert_to_tensor(num_steps, tf.int32)
        message = f"num_steps: this model takes {self.about_steps(process)}"
        checks = [tf.debugging.assert_greater_equal(num_steps, fewest, message)]
        if most is not None:
            checks.append(tf.debugging.assert_less_equal(num_steps, most, message))
        with tf.control_dependencies([check for check in checks if check is not None]):
            return tf.identity(num_steps)

    def steps_below(self, denoiser: Denoiser, t: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
        """How many of so many steps are taken by who begins at time t."""
        below = self._times(denoiser, tf.range(1, num_steps), num_steps) < t
        return 1 + tf.math.count_nonzero(below, dtype=tf.int32)

    def _times(self, denoiser: Denoiser, k: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
        """Times number k of `num_steps`; of those that were learnt, where they were counted."""
        places = tf.cast(k, tf.float32) / tf.cast(num_steps, tf.float32)
        _, most = self.allowed_steps(denoiser.process)
        if most is not None:
            return tf.round(places * most) / most
        return self.grid.times(denoiser.process, places, denoiser.spectrum)


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
