"""The blurring diffusion process, forwards and backwards (sections 3 and 4 of the paper).

Everything is float32 TensorFlow without state; noise comes in from the caller.
"""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.diffusion.bases import DCT, Basis
from bdm_tf.diffusion.blur_schedules import BlurSchedule, Dissipation
from bdm_tf.diffusion.noise_schedules import CosineSchedule, NoiseSchedule
from bdm_tf.system.errors import (
    UserError,
    check_between,
    check_flags,
    check_image_shape,
    check_kind,
)


@gin.register
class BlurringProcess:
    """`u_t = alpha_t * u_x + sigma_t * u_eps` with `alpha_t = a_t d_t`, `z_t = V u_t` (Eq. 19, 27).

    Attributes:
        num_steps: K, if the blur was defined at the times k / K alone, or None.
        is_deterministic: whether there is no noise at all.
        keeps_scale: whether what is not blurred keeps its scale, `a_t = 1`.
        needs_spectrum: whether it needs the training images' spectrum, by `use_spectrum`.

    Args:
        image_shape: `(H, W, C)` of the images.
        basis: V, or an invertible P (section 4.1).
        noise: the schedule `a_t`, `sigma_t`.
        blur: the schedule `d_t` of each frequency.
        variance_preserving: divide alpha_t and sigma_t of each frequency by the root of `alpha_t^2
            + sigma_t^2`. Then sigma_t is a vector; the signal-to-noise ratios, which are all that
            matters to an optimal network (section 3), stay what they are.
        delta: 0 gives the exact denoising distribution in a form that is stable in float32;
            1e-8 reproduces the literal coefficients of Appendix A.1, which add it to denominators.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        basis: Basis | None = None,
        noise: NoiseSchedule | None = None,
        blur: Dissipation | None = None,
        variance_preserving: bool = False,
        delta: float = 0.0,
    ):
        check_image_shape("BlurringProcess.image_shape", image_shape)
        self.image_shape = tuple(image_shape)
        self.basis = DCT() if basis is None else basis
        self._noise = CosineSchedule() if noise is None else noise
        self._blur = BlurSchedule() if blur is None else blur
        check_kind("BlurringProcess.basis", self.basis, Basis)
        check_kind("BlurringProcess.noise", self._noise, NoiseSchedule)
        check_kind("BlurringProcess.blur", self._blur, Dissipation)
        self._blur.check_noise(self._noise)
        self._noise = self._noise.for_images(self.basis, self.image_shape)
        self.needs_spectrum = self._noise.needs_spectrum
        check_flags("BlurringProcess", variance_preserving=variance_preserving)
        check_between("BlurringProcess.delta", delta, 0, 1)
        self._variance_preserving, self._delta = variance_preserving, delta
        self.num_steps = self._blur.num_steps
        self.is_deterministic = self._noise.is_zero
        self.keeps_scale = self._noise.keeps_scale and not variance_preserving
        if variance_preserving and self.is_deterministic:
            raise UserError("BlurringProcess.variance_preserving needs noise, but sigma_t is 0")
        height, width, _ = self.image_shape
        with tf.init_scope():
            self._frequencies_squared = self.basis.frequencies_squared(height, width)
            kept = self._blur.frequency_scaling(tf.ones([1, 1, 1, 1]), self._frequencies_squared)
        if self._noise.blurs and tf.reduce_min(kept) < 1.0:
            raise UserError(
                f"BlurringProcess.noise = @{type(self._noise).__name__}() blurs by itself: give "
                "BlurSchedule.sigma_blur_max = 0.0"
            )

    def use_spectrum(self, spectrum) -> None:
        """Takes the training images' spectrum, in this process's basis."""
        self._noise = self._noise.for_images(self.basis, self.image_shape, spectrum)

    def alpha_sigma(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns alpha_t and sigma_t for t `[B]` (Eq. 27).

        Returns:
            `alpha_t` `[B, H, W, 1]`, and `sigma_t` `[B, 1, 1, 1]` if the frequencies share it,
            else `[B, H, W, 1]`.
        """
        t = _per_image(t)
        a_t, sigma_t = self._noise.a_sigma(t)
        alpha_t = a_t * self._blur.frequency_scaling(t, self._frequencies_squared)
        if self._variance_preserving:
            scale = tf.math.rsqrt(alpha_t**2 + sigma_t**2)
            return scale * alpha_t, scale * sigma_t
        return alpha_t, sigma_t

    def on_grid(self, t: tf.Tensor) -> tf.Tensor:
        """Times `[B]` in [0, 1] as k / K with k = 1 ... K, uniform if `t` is; `t` without a K."""
        if self.num_steps is None:
            return t
        return tf.clip_by_value(tf.math.ceil(t * self.num_steps), 1.0, self.num_steps) / (
            self.num_steps
        )

    def diffuse(self, x: tf.Tensor, t: tf.Tensor, eps: tf.Tensor) -> tf.Tensor:
        """A draw of q(z_t | x), in pixel space (Eq. 24, 28).

        Args:
            x: images `[B, H, W, C]` in [-1, 1].
            t: times `[B]` in [0, 1].
            eps: noise in pixel space, shaped like `x`: standard normal, if the basis is
                orthonormal; else `basis.noise` of it (Eq. 29).

        Returns:
            `z_t = V (alpha_t * V^T x) + sigma_t eps`, where one pair of transforms serves; with a
            sigma_t for each frequency `z_t = V (alpha_t * V^T x + sigma_t * V^T eps)`.
        """
        alpha_t, sigma_t = self.alpha_sigma(t)
        basis = self.basis
        faded = alpha_t * basis.to_frequency(x)
        if sigma_t.shape[1:3] == (1, 1):
            return basis.to_pixel(faded) + sigma_t * eps
        return basis.to_pixel(faded + sigma_t * basis.to_frequency(eps))

    def transition(self, *, s: tf.Tensor, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """q(u_t | u_s) = N(alpha_ts u_s, sigma2_ts) for s < t (Eq. 15).

        Returns:
            `alpha_ts` and `sigma2_ts`, both `[B, H, W, 1]`.

        Raises:
            UserError: the process has no noise.
        """
        self._check_noise()
        _, sigma_t = self.alpha_sigma(t)
        _, sigma_s = self.alpha_sigma(s)
        log_r = self.logsnr_difference(s, t)
        # Not alpha_t / alpha_s: without a d_min both may be 0 in float32.
        return tf.exp(0.5 * log_r) * sigma_t / sigma_s, -(sigma_t**2) * tf.math.expm1(log_r)

    def denoising_distribution(
        self, *, s: tf.Tensor, t: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """q(u_s | u_t, x) = N(coeff_u_t u_t + coeff_u_x u_x, sigma2_denoise) (Eq. 17, 18).

        With `u_x = (u_t - sigma_t u_eps) / alpha_t` it is Eq. 23. Let r = SNR_t / SNR_s for each
        frequency. Then `sigma2_ts = sigma_t^2 (1 - r)`, and Eq. 18 is `sigma2_denoise = sigma_s^2
        (1 - r)`, `coeff_u_x = alpha_s (1 - r)` and `coeff_u_t = alpha_ts sigma_s^2 / sigma_t^2 =
        sqrt(r) sigma_s / sigma_t`, where nothing cancels once `1 - r` is an `expm1`.

        Args:
            s: times `[B]` in [0, 1), below `t`.
            t: times `[B]` in (0, 1].

        Returns:
            `coeff_u_t`, `coeff_u_x` and `sigma2_denoise`, each `[B, H, W, 1]`.

        Raises:
            UserError: the process has no noise.
        """
        self._check_noise()
        if self._delta:
            return self._appendix_coefficients(s, t)
        _, sigma_t = self.alpha_sigma(t)
        alpha_s, sigma_s = self.alpha_sigma(s)
        log_r = self.logsnr_difference(s, t)
        one_minus_r = -tf.math.expm1(log_r)
        coeff_u_t = tf.exp(0.5 * log_r) * sigma_s / sigma_t
        return coeff_u_t, alpha_s * one_minus_r, sigma_s**2 * one_minus_r

    def u_x_from_u_eps(self, u_t: tf.Tensor, u_eps: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `u_x = (u_t - sigma_t u_eps) / alpha_t` (Eq. 21)."""
        alpha_t, sigma_t = self.alpha_sigma(t)
        return (u_t - sigma_t * u_eps) / alpha_t

    def u_eps_from_u_x(self, u_t: tf.Tensor, u_x: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `u_eps = (u_t - alpha_t u_x) / sigma_t` (Eq. 20), 0 where there is no noise."""
        alpha_t, sigma_t = self.alpha_sigma(t)
        return tf.math.divide_no_nan(u_t - alpha_t * u_x, sigma_t)

    def logsnr_difference(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """log SNR(t) - log SNR(s) of each frequency, `[B, H, W, 1]`, never positive for s < t.

        SNR is `alpha_t^2 / sigma_t^2`; nothing cancels, however close s and t are.
        """
        s, t = _per_image(s), _per_image(t)
        scaling = self._blur.log_scaling_difference(s, t, self._frequencies_squared)
        return self._noise.logsnr_difference(s, t) + 2.0 * scaling

    def logsnr_slope(self, t: tf.Tensor) -> tf.Tensor:
        """`d log SNR(t) / dt` of each frequency, `[B, H, W, 1]`, negative."""
        t = _per_image(t)
        scaling = self._blur.log_scaling_slope(t, self._frequencies_squared)
        return self._noise.logsnr_slope(t) + 2.0 * scaling

    def log_noise_to_signal(self, t: tf.Tensor) -> tf.Tensor:
        """See `NoiseSchedule.log_noise_to_signal`."""
        return self._noise.log_noise_to_signal(tf.convert_to_tensor(t, tf.float32))

    def time_at(self, log_noise_to_signal: tf.Tensor) -> tf.Tensor:
        """See `NoiseSchedule.time_at`."""
        return self._noise.time_at(log_noise_to_signal)

    def importance_times(self, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `NoiseSchedule.importance_times`."""
        return self._noise.importance_times(places)

    def importance_probability(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """See `NoiseSchedule.importance_probability`."""
        return self._noise.importance_probability(s, t)

    def _check_noise(self) -> None:
        if self.is_deterministic:
            raise UserError("without noise (sigma_t = 0) there are no such distributions")

    def _appendix_coefficients(self, s, t):
        """A.1 to the letter; its second term multiplies u_t - sigma_t u_eps = alpha_t u_x."""
        delta = self._delta
        alpha_t, sigma_t = self.alpha_sigma(t)
        alpha_s, sigma_s = self.alpha_sigma(s)
        alpha_ts = alpha_t / alpha_s
        sigma2_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
        precision_s = 1.0 / tf.maximum(sigma_s**2, delta)
        precision_t = 1.0 / tf.maximum(sigma_t**2 / alpha_ts**2 - sigma_s**2, delta)
        sigma2_denoise = 1.0 / tf.maximum(precision_s + precision_t, delta)
        coeff_u_t = alpha_ts * sigma2_denoise / (sigma2_ts + delta)
        coeff_term2 = sigma2_denoise * precision_s / alpha_ts
        return coeff_u_t, coeff_term2 * alpha_t, sigma2_denoise


def _per_image(t: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.convert_to_tensor(t, tf.float32), [-1, 1, 1, 1])
