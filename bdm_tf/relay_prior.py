"""Where the second stage of a relay starts: samples of a smaller model, enlarged, plus noise."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.data.pipeline import to_unit_range
from bdm_tf.diffusion.relay import PatchDCT
from bdm_tf.noise import PRIOR, normal
from bdm_tf.priors import Prior
from bdm_tf.saved_models import load_saved_model, model_info
from bdm_tf.system.errors import UserError, check_between, check_text
from bdm_tf.system.paths import expanded

_NAME = "RelayPrior.saved_model"
_POSITIVE = 2**31 - 1  # a SavedModel takes no seed below 0


@gin.register
class RelayPrior(Prior):
    """q(z_t | x) of x, a sample of a low-resolution model, each pixel repeated over its patch.

    Relay Diffusion (Teng et al., 2024): blur within patches keeps their means, which the first
    stage gives in place of t = 1. Image i of a seed always goes on from the same image.

    Args:
        saved_model: the SavedModel of the first stage, which becomes part of those exported here;
            it must be given.
        sigma: the noise at which to start; the sampler's steps above it are left out, as in the
            published code. None is that of t = 1.

    Raises:
        UserError: no SavedModel of this library, or one with labels.
    """

    begins_in_noise = False

    def __init__(self, saved_model: str = "", sigma: float | None = 0.9):
        super().__init__()
        if not saved_model:
            raise UserError(
                f"{_NAME} must be given: the SavedModel of the first stage (docs/models.md)"
            )
        check_text("RelayPrior", saved_model=saved_model)
        if sigma is not None:
            check_between("RelayPrior.sigma", sigma, 0, 1e6, without_low=True)
        path = expanded(_NAME, saved_model)
        if not tf.io.gfile.exists(path):
            raise UserError(
                f"{_NAME}={path} is not there: give its new place, or begin in noise by "
                "sample.prior = None"
            )
        info = model_info(path, _NAME)
        if "class_names" in info:
            raise UserError(
                f"{_NAME}={path} was trained with labels, which a relay does not hand on: give one "
                "without"
            )
        self._path, self._sigma = path, sigma
        self._image_shape = tuple(info["image_shape"])
        with tf.init_scope():
            self._first_stage = load_saved_model(path, _NAME)
        weights = {f"first_{i}": v for i, v in enumerate(self._first_stage.weights)}
        of_prior = {f"first_{name}": v for name, v in self._first_stage.prior.items()}
        self.variables = weights | of_prior

    def check(self, process):
        (height, width, channels), (low, across, same) = process.image_shape, self._image_shape
        factor = height // low
        if factor < 2 or (low * factor, across * factor, same) != (height, width, channels):
            here, there = ("x".join(map(str, s)) for s in (process.image_shape, self._image_shape))
            raise UserError(
                f"{_NAME}={self._path}: its images are {there}; they must be smaller than this "
                f"model's, {here}, by a whole factor, with as many channels"
            )
        if not isinstance(process.basis, PatchDCT) or process.basis.size != factor:
            raise UserError(
                f"{_NAME}={self._path} gives the means of patches of {factor}x{factor} pixels, so "
                "the model must be trained with BlurringProcess.basis = @PatchDCT() and "
                f"PatchDCT.size = {factor}"
            )
        with tf.init_scope():
            least, most = tf.exp(process.log_noise_to_signal([0.0, 1.0])).numpy()
        if self._sigma is not None and not least < self._sigma <= most:
            raise UserError(
                f"RelayPrior.sigma={self._sigma} must be above {least:.3g} and at most {most:.3g}, "
                "the least and the most noise of this model"
            )

    def time(self, process):
        if self._sigma is None:
            return 1.0
        return process.time_at(tf.math.log([self._sigma]))[0]

    def draw(self, process, seeds, image_shape):
        """z_t at `time`; see `Prior`. Images of other numbers, in between, are drawn in vain."""
        numbers = seeds[:, 1]
        first = tf.reduce_min(numbers)
        drawn = self._first_stage.sample(
            seed=tf.stack([tf.bitwise.bitwise_and(seeds[0, 0], _POSITIVE), 0]),
            num_images=tf.reduce_max(numbers) - first + 1,
            first=first,
        )
        x = to_unit_range(tf.gather(drawn, numbers - first))
        for axis in (1, 2):
            x = tf.repeat(x, process.basis.size, axis=axis)
        eps = process.basis.noise(normal(seeds, PRIOR, image_shape))
        return process.diffuse(x, tf.fill([seeds.shape[0]], self.time(process)), eps)
