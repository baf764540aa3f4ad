"""Where sampling starts: p(z_1), which is white noise here.

A process that ends in noise forgets the image; one that ends in blur does not, and needs images
of that blur to begin with. What is left of them is a few low frequencies, which a prior keeps.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable

import gin
import numpy as np
import tensorflow as tf

from bdm_tf.noise import PRIOR, between, normal
from bdm_tf.system.errors import UserError

_NEARLY = 0.1

Batches = Callable[[], Iterable[np.ndarray]]


class Prior(abc.ABC):
    """Draws of z_1, or of z_t at an earlier `time`; image i's belong to (seed, i).

    Attributes:
        learnt: names of the arrays that `fit` returns.
        is_fitted: whether it needs training images at all.
        has_divergence: whether `divergence` is known.
        variables: what was learnt from them, by name; empty until `restore`.
    """

    learnt: tuple[str, ...] = ()
    has_divergence = False

    def __init__(self) -> None:
        self.variables: dict[str, tf.Variable] = {}

    @property
    def is_fitted(self) -> bool:
        return bool(self.learnt)

    @property
    def begins_in_noise(self) -> bool:
        """Whether z_1 has nothing of an image."""
        return not self.is_fitted

    def check(self, process) -> None:
        """Raises a `UserError` if it is not for this process."""
        return

    def time(self, process) -> float | tf.Tensor:
        """The time t in (0, 1] of its draws, a scalar."""
        return 1.0

    def fit(self, batches: Batches, process) -> dict[str, np.ndarray]:
        """Learns from the training images what `restore` needs.

        Args:
            batches: called for each pass over the images: uint8 `[n, H, W, C]` in fixed order.
            process: the diffusion process.

        Returns:
            Arrays by name; none, if there is nothing to learn.

        Raises:
            UserError: it would not fit into memory.
        """
        return {}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes what `fit` returned.

        Raises:
            ValueError: an array lacks.
        """
        if lacking := sorted(set(self.learnt) - set(arrays)):
            raise ValueError(f"it lacks {', '.join(lacking)}")
        with tf.init_scope():
            self.variables = {
                name: tf.Variable(value, trainable=False, name=name)
                for name, value in sorted(arrays.items())
            }

    @abc.abstractmethod
    def draw(self, process, seeds: tf.Tensor, image_shape) -> tf.Tensor:
        """Returns z_1 `[B, *image_shape]` for the seeds int32 `[B, 2]` of the images.

        The seeds are `bdm_tf.noise.image_seeds` of one seed: their second words are the numbers.
        """

    def divergence(self, process, u_x: tf.Tensor) -> tf.Tensor:
        """KL(q(u_1 | x) || p(u_1)) in nats, `[B]`, for coefficients `u_x` `[B, H, W, C]`."""
        raise NotImplementedError(type(self).__name__)


@gin.register
class StandardNormal(Prior):
    """N(0, I), or N(0, P P^T) in a basis P: where denoising and blurring diffusion begin."""

    has_divergence = True

    def check(self, process):
        if process.needs_spectrum:  # its noise is not known yet
            white = False
        else:
            with tf.init_scope():
                _, sigma = process.alpha_sigma([1.0])
            white = bool(tf.reduce_max(tf.abs(sigma - 1.0)) < _NEARLY)
        if not white:
            raise UserError(
                "StandardNormal begins in white noise of standard deviation 1, and this process "
                "does not end there: give Model.prior = @NoisePrior() if nothing of the images is "
                "left at t = 1, else @GaussianPrior() or @BlurredImages(), which are fitted to "
                "them; with @CosineSchedule() a logsnr_min of -3 or less will do"
            )

    def draw(self, process, seeds, image_shape):
        return process.basis.noise(normal(seeds, PRIOR, image_shape))

    def draw_between(self, process, seeds, others, weight: tf.Tensor, image_shape) -> tf.Tensor:
        """Starts on the way from those of `seeds` to those of `others`, int32 `[B, 2]` each.

        The coefficients of their noise are interpolated, see `bdm_tf.noise.between`; `weight` `[B]`
        in [0, 1] is how far on the way. Returns `[B, *image_shape]`.
        """
        a, b = (normal(end, PRIOR, image_shape) for end in (seeds, others))
        return process.basis.noise(between(a, b, weight))

    def divergence(self, process, u_x):
        alpha, sigma = process.alpha_sigma([1.0])
        sigma2 = sigma**2
        terms = alpha**2 * u_x**2 + (sigma2 - 1.0 - tf.math.log(sigma2))
        return 0.5 * tf.reduce_sum(terms, axis=[1, 2, 3])
