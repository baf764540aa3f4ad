"""Network, process and parametrisation together: what a sampler needs to know of a model."""

from __future__ import annotations

import copy

import tensorflow as tf

from bdm_tf.classes import check_given
from bdm_tf.parametrisations import Parametrisation, PredictEps
from bdm_tf.priors import Prior, StandardNormal
from bdm_tf.projections import NoProjection, Projection
from bdm_tf.spectrum import Spectrum, check_shape
from bdm_tf.system.errors import UserError, check_kind


class Denoiser:
    """Estimates the noise and the clean image behind z_t.

    Args:
        network: `network(z_t [B, H, W, C], t [B])` predicts in pixel space; of images with labels,
            it takes `label=` int32 `[B]`, and its `num_classes` for an image without.
        process: the diffusion process it was trained on.
        projection: bounds on the estimate of the image; None is `NoProjection`. The noise is taken
            from what is left.
        parametrisation: what the network predicts; None is `PredictEps`.
        prior: where samples begin; None is `StandardNormal`.
        spectrum: of the training images, which some projections, parametrisations and time grids
            need.

    Raises:
        UserError: a part is of another kind, or the spectrum is of images of another shape.
    """

    def __init__(
        self,
        network,
        process,
        projection: Projection | None = None,
        *,
        parametrisation: Parametrisation | None = None,
        prior: Prior | None = None,
        spectrum: Spectrum | None = None,
    ):
        self.network = network
        self.process = process
        self.projection = NoProjection() if projection is None else projection
        self.parametrisation = PredictEps() if parametrisation is None else parametrisation
        self.prior = StandardNormal() if prior is None else prior
        self.spectrum = spectrum
        self._label: tf.Tensor | None = None
        self._guidance: float | tf.Tensor = 1.0
        self._interval: tuple[float, float] | None = None
        check_kind("projection", self.projection, Projection)
        check_kind("parametrisation", self.parametrisation, Parametrisation)
        check_kind("prior", self.prior, Prior)
        if spectrum is not None:
            check_kind("spectrum", spectrum, Spectrum)
            check_shape(spectrum, process)

    def __call__(
        self, z_t: tf.Tensor, t: tf.Tensor, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `u_eps_hat` and `u_x_hat`, coefficients `[B, H, W, C]` (Eq. 21).

        Args:
            z_t: `[B, H, W, C]`.
            t: times `[B]`.
            dropout_seed: int32 `[2]`, or None for no dropout.
        """
        process, basis, spectrum = self.process, self.process.basis, self.spectrum
        u_f = basis.to_frequency(self.predict(z_t, t, dropout_seed))
        u_t = basis.to_frequency(z_t)
        u_eps_hat, free = self.parametrisation.coefficients(
            process, u_f=u_f, u_t=u_t, t=t, spectrum=spectrum
        )
        u_x_hat = self.projection(free, process=process, spectrum=spectrum, t=t)
        if u_x_hat is free:
            return u_eps_hat, free
        if not tf.is_tensor(u_x_hat) or not u_x_hat.shape.is_compatible_with(free.shape):
            raise UserError(
                f"{type(self.projection).__name__} must return u_x_hat, of shape {free.shape}"
            )
        moved = process.u_eps_from_u_x(u_t, u_x_hat, t)
        return tf.where(u_x_hat == free, u_eps_hat, moved), u_x_hat

    def predict(
        self, z_t: tf.Tensor, t: tf.Tensor, dropout_seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the network's own output, `[B, H, W, C]` in pixel space."""
        seen = self.parametrisation.network_input(self.process, z_t, t, self.spectrum)
        seed = () if dropout_seed is None else (dropout_seed,)
        if self._label is None:
            return self.network(seen, t, *seed)

        def conditional():
            return self.network(seen, t, *seed, label=self._label)

        def guided():
            without = tf.fill(tf.shape(self._label), self.network.num_classes)
            both = self.network(
                tf.concat([seen, seen], 0),
                tf.concat([t, t], 0),
                *seed,
                label=tf.concat([self._label, without], 0),
            )
            with_label, without_label = tf.split(both, 2)
            share = guidance[:, None, None, None]
            return without_label + share * (with_label - without_label)

        low, high = self._interval or (0.0, 1.0)
        guidance = tf.where((low <= t) & (t <= high), self._guidance, 1.0)
        if self._interval is None and not tf.is_tensor(self._guidance):
            return conditional() if self._guidance == 1 else guided()
        return tf.cond(tf.reduce_all(guidance == 1.0), conditional, guided)

    def given(
        self,
        label: tf.Tensor,
        guidance: float | tf.Tensor = 1.0,
        interval: tuple[float, float] | None = None,
    ) -> Denoiser:
        """This denoiser, for batches of images of known classes.

        With guidance g the network predicts `f_0 + g (f_c - f_0)`, of f_c with the label and f_0
        without it (Ho & Salimans 2022, where g - 1 is w). As u_eps_hat and u_x_hat depend on the
        prediction linearly, that is guidance of u_eps_hat. A batch of twice the size is evaluated
        where g is not 1.

        Args:
            label: int32 `[B]`, the class of each image.
            guidance: g, not negative: 0 is the model without labels, 1 that with them, more obeys
                them more than the data do.
            interval: the times `(low, high)` at which there is guidance; None for all.

        Raises:
            UserError: see `check_given`.
        """
        bound = copy.copy(self)
        bound._label = check_given(getattr(self.network, "num_classes", 0), label, guidance)
        bound._guidance, bound._interval = guidance, interval
        return bound

    def target(self, *, x: tf.Tensor, eps: tf.Tensor, z_t: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """What a perfect network would answer; see `Parametrisation.target`."""
        return self.parametrisation.target(
            self.process, x=x, eps=eps, z_t=z_t, t=t, spectrum=self.spectrum
        )
