"""The variational bound on the likelihood of 8-bit images, in bits per dimension.

    -log p(x) <= KL(q(u_1 | x) || p(u_1)) + E[sum of KLs of the steps] + E[-log p(x | u_0)]

The bound of Kingma et al., "Variational Diffusion Models" (2021), where each frequency has its own
signal-to-noise ratio `SNR_i(t) = alpha_i(t)^2 / sigma_i(t)^2`. The paper does not measure it.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from bdm_tf.noise import normal
from bdm_tf.parametrisations import PredictStep

# Of the bound: what z_1 costs, what the steps cost, what the levels cost given u_0.
TERMS = ("prior", "diffusion", "reconstruction")
_LEVELS = 256
_AT_START, _AT_T = 0, 1  # what noise is drawn for
_GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


def low_discrepancy(indices: np.ndarray, seed: int) -> np.ndarray:
    """Numbers in [0, 1) for consecutive indices that cover it evenly, float32 shaped like them.

    The additive recurrence `u_0 + i * golden ratio`: an estimate over any run of images has the low
    variance of stratified ("antithetic") times, and image i's number does not depend on its batch.
    """
    start = np.random.default_rng(seed).random()
    places = np.mod(start + np.asarray(indices, np.float64) * _GOLDEN_RATIO, 1.0)
    return np.minimum(places.astype(np.float32), np.nextafter(np.float32(1), np.float32(0)))


def no_bound(denoiser) -> str | None:
    """Why a model has no such bound, in words; None if it has."""
    if denoiser.process.is_deterministic:
        return "without noise no image but those that were seen has a probability"
    if isinstance(denoiser.parametrisation, PredictStep):
        return "PredictStep estimates neither noise nor image"
    if not denoiser.prior.has_divergence:
        return f"{type(denoiser.prior).__name__} has no divergence in closed form"
    return None


def variational_bound(
    denoiser,
    images: tf.Tensor,
    *,
    seeds: tf.Tensor,
    places: tf.Tensor,
    num_steps: int | None = None,
    importance: bool = True,
) -> dict[str, tf.Tensor]:
    """The three terms of the bound, each with one draw of noise and of t.

    Args:
        denoiser: a `Denoiser`.
        images: uint8 `[B, H, W, C]`.
        seeds: int32 `[B, 2]`, of each image's noise.
        places: `[B]` in [0, 1), which t is made from; see `low_discrepancy`.
        num_steps: T of the bound; None is continuous time, T to infinity.
        importance: draw t uniform in the scalar log-SNR, where the summands vary less, and
            weight accordingly; False draws t uniform in [0, 1]. Both are unbiased.

    Returns:
        "prior", "diffusion" and "reconstruction", each float32 `[B]`, in bits per dimension.
    """
    x = tf.cast(images, tf.float32) / 127.5 - 1.0
    process, image_shape = denoiser.process, x.shape[1:]
    u_x = process.basis.to_frequency(x)
    bits = 1.0 / (math.log(2.0) * math.prod(image_shape))
    u_eps = normal(seeds, _AT_T, image_shape)
    diffusion = diffusion_term(
        denoiser, u_x, u_eps, places, num_steps=num_steps, importance=importance
    )
    u_eps = normal(seeds, _AT_START, image_shape)
    return {
        "prior": denoiser.prior.divergence(process, u_x) * bits,
        "diffusion": diffusion * bits,
        "reconstruction": reconstruction_term(process, x, u_eps) * bits,
    }


def diffusion_term(
    denoiser,
    u_x: tf.Tensor,
    u_eps: tf.Tensor,
    places: tf.Tensor,
    *,
    num_steps: int | None,
    importance: bool,
) -> tf.Tensor:
    """An unbiased estimate of the sum of the steps' KLs in nats, `[B]`.

    For T steps KL(q(u_s | u_t, x) || p(u_s | u_t)) is `1/2 sum_i (SNR_i(s) / SNR_i(t) - 1)
    (u_eps,i - u_eps_hat,i)^2` at t = k/T, s = (k-1)/T; in the limit of many steps their sum is the
    integral over t of `-1/2 sum_i (d log SNR_i / dt) (u_eps,i - u_eps_hat,i)^2`.

    Args:
        denoiser: a `Denoiser`.
        u_x: coefficients of the images, `[B, H, W, C]`.
        u_eps: standard normal, shaped like `u_x`.
        places, num_steps, importance: see `variational_bound`.
    """
    process = denoiser.process
    if importance:
        t, density = process.importance_times(places)
    else:
        t, density = places, tf.ones_like(places)
    if num_steps is None:
        weight = -0.5 * process.logsnr_slope(t)
    else:
        t = tf.clip_by_value(tf.math.ceil(t * num_steps), 1.0, num_steps) / num_steps
        s = tf.maximum(t - 1.0 / num_steps, 0.0)
        weight = 0.5 * tf.math.expm1(-process.logsnr_difference(s, t))
        density = process.importance_probability(s, t) if importance else 1.0 / num_steps
    alpha_t, sigma_t = process.alpha_sigma(t)
    z_t = process.basis.to_pixel(alpha_t * u_x + sigma_t * u_eps)
    u_eps_hat, _ = denoiser(z_t, t)
    return _sum(weight * tf.square(u_eps - u_eps_hat)) / density


def reconstruction_term(process, x: tf.Tensor, u_eps: tf.Tensor) -> tf.Tensor:
    """-log p(x | u_0) in nats, `[B]`: what it costs to name the 8-bit levels, given u_0.

    p(x | u_0) is independent over pixels and proportional, over the 256 levels, to the density of
    the pixel `V(u_0 / alpha_0)` around the level, with the pixel's variance. Where the noise at
    t = 0 is not white, it is taken for independent; the bound holds for any such choice.

    Args:
        process: the diffusion process.
        x: images `[B, H, W, C]`, levels scaled to [-1, 1].
        u_eps: standard normal coefficients, shaped like `x`.
    """
    alpha, sigma = process.alpha_sigma([0.0])
    noise = process.basis.to_pixel(sigma / alpha * u_eps)
    pixels = x + noise
    scale = 0.5 / process.basis.pixel_variance(tf.square(sigma / alpha))
    nearest = tf.clip_by_value(tf.round((pixels + 1.0) * 127.5), 0.0, _LEVELS - 1.0) / 127.5 - 1.0
    least = tf.square(pixels - nearest)  # so that no exponential overflows

    def add(total, level):
        return total + tf.exp(scale * (least - tf.square(pixels - level)))

    levels = tf.range(_LEVELS, dtype=tf.float32) / 127.5 - 1.0
    normalizer = tf.foldl(add, levels, tf.zeros_like(pixels))
    return _sum(scale * (tf.square(noise) - least) + tf.math.log(normalizer))


def _sum(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values, axis=[1, 2, 3])
