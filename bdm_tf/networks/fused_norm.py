"""Group normalisation, swish and dropout for training on a CPU, in few passes over the image.

TensorFlow's own operations pass over the image some thirty times, forwards and backwards, and keep
what they find for the gradient, in float32. Here XLA compiles each pass to one loop; the gradient
is written out and keeps the image alone, and which pixels were dropped. What is small, `[B, C]`,
comes out of calls of its own: XLA would otherwise compute it anew for each pixel.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

import tensorflow as tf

from bdm_tf.networks.dropout import draw, kept, of_kept

EPSILON = 1e-6  # of the variance
_WORTHWHILE = 2**18  # numbers
_elsewhere: ContextVar[bool] = ContextVar("elsewhere", default=False)


@contextlib.contextmanager
def for_accelerators() -> Iterator[None]:
    """What is traced inside will run on a GPU or TPU, whatever this machine has."""
    token = _elsewhere.set(True)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def suits(shape, channels: int) -> bool:
    """Whether it is for a network of so many channels and images `[B, H, W, C]`, traced now.

    Small ones, such as the digits, stay in the cache: they gain nothing, and XLA takes seconds. On
    a TPU or GPU XLA compiles the whole step.
    """
    kinds = ("GPU", "TPU")
    if math.prod(shape[:3]) * channels < _WORTHWHILE:
        return False
    return not _elsewhere.get() and not any(map(tf.config.list_logical_devices, kinds))


class Kind(NamedTuple):
    """What is static: the number of groups, what follows the normalisation."""

    groups: int
    swish: bool
    dropout: float


def fused_norm(x, gamma, beta, modulation=None, *, kind: Kind, dropout_seed=None) -> tf.Tensor:
    """What `GroupNorm.call` returns.

    Args:
        x: `[B, H, W, C]`, its shape static.
        gamma, beta: float32 `[C]`.
        modulation: `[B, 2 C]`, scale and shift; None for none.
        kind: what is static.
        dropout_seed: int32 `[2]`; None is no dropout.
    """
    given = [x, gamma, beta] + ([] if modulation is None else [modulation])
    draws = None if dropout_seed is None else draw(x.shape, dropout_seed)

    @tf.custom_gradient
    def normalise(*given):
        measured = _measure(*given, kind=kind)
        y, is_kept = _apply(given[0], draws, *measured[2:], kind=kind)

        def gradient(dy):
            dy, slopes, small = _measure_gradient(dy, is_kept, *measured, *given, kind=kind)
            d_gamma, d_beta, d_scale, d_shift = small
            dx = _apply_gradient(dy, given[0], *slopes)
            if modulation is None:
                return dx, d_gamma, d_beta
            both = tf.concat([d_scale, d_shift], axis=1)
            return dx, d_gamma, d_beta, tf.cast(both, modulation.dtype)

        return y, gradient

    return normalise(*given)


@tf.function(jit_compile=True, autograph=False)
def _measure(x, gamma, beta, modulation=None, *, kind):
    """Mean and precision of each channel's group, and the slope and shift of x, all `[B, C]`."""
    wide = tf.cast(x, tf.float32)
    mean = _over_group(_mean(wide), kind)
    second = _over_group(_mean(tf.square(wide)), kind)
    precision = tf.math.rsqrt(tf.maximum(second - tf.square(mean), 0.0) + EPSILON)
    factor, offset, _ = _modulated(gamma, beta, modulation)
    slope = factor * precision
    return mean, precision, slope, offset - mean * slope


@tf.function(jit_compile=True, autograph=False)
def _apply(x, draws, slope, shift, *, kind):
    """The result, and what dropout keeps of it."""
    y = _line(x, slope, shift)
    if kind.swish:
        y *= tf.sigmoid(y)
    if draws is None:
        return tf.cast(y, x.dtype), None
    is_kept = kept(draws, x.shape[0], kind.dropout)
    return tf.cast(of_kept(y, is_kept, kind.dropout), x.dtype), is_kept


@tf.function(jit_compile=True, autograph=False)
def _measure_gradient(
    dy, is_kept, mean, precision, slope, shift, x, gamma, beta, modulation=None, *, kind
):
    """The gradient before swish and dropout; three `[B, C]` by which that of x is made of it; those
    of gamma, beta, scale and shift.
    """
    wide, dy = tf.cast(x, tf.float32), tf.cast(dy, tf.float32)
    if is_kept is not None:
        dy = of_kept(dy, is_kept, kind.dropout)
    if kind.swish:
        y = _line(x, slope, shift)
        gate = tf.sigmoid(y)
        dy *= gate * (1.0 + y * (1.0 - gate))
    factor, _, scale = _modulated(gamma, beta, modulation)
    dy_mean, dy_x_mean = _mean(dy), _mean(dy * wide)
    by_mean = _over_group(factor * dy_mean, kind)
    by_second = _over_group(factor * dy_x_mean, kind)
    curvature = (by_mean * mean - by_second) * precision**3
    constant = -curvature * mean - by_mean * precision
    pixels = x.shape[1] * x.shape[2]
    d_factor, d_offset = pixels * (dy_x_mean - mean * dy_mean) * precision, pixels * dy_mean
    d_gamma, d_beta = (tf.reduce_sum(d * scale, axis=0) for d in (d_factor, d_offset))
    small = d_gamma, d_beta, d_factor * gamma + d_offset * beta, d_offset
    return dy, (slope, curvature, constant), small


@tf.function(jit_compile=True, autograph=False)
def _apply_gradient(dy, x, slope, curvature, constant):
    dx = dy * slope[:, None, None, :] + _line(x, curvature, constant)
    return tf.cast(dx, x.dtype)


def _modulated(gamma, beta, modulation):
    """Factor and offset of what is normalised, and 1 + scale: `[B, C]`, or `[1, C]`."""
    if modulation is None:
        return gamma[None], beta[None], tf.ones([1, 1])
    scale, shift = tf.split(tf.cast(modulation, tf.float32), 2, axis=1)
    return gamma * (1.0 + scale), beta * (1.0 + scale) + shift, 1.0 + scale


def _line(x, slope, shift):
    return tf.cast(x, tf.float32) * slope[:, None, None, :] + shift[:, None, None, :]


def _mean(x):
    """The mean over H and W, `[B, C]`, as a product: XLA's sums over columns are slow on a CPU."""
    count, height, width, channels = x.shape
    ones = tf.fill([count, 1, height * width], 1.0 / (height * width))
    return tf.matmul(ones, tf.reshape(x, [count, height * width, channels]))[:, 0]


def _over_group(per_channel, kind):
    """The mean of `[B, C]` over each group, for each of its channels."""
    count, channels = per_channel.shape
    grouped = tf.reshape(per_channel, [count, kind.groups, channels // kind.groups])
    mean = tf.reduce_mean(grouped, axis=2, keepdims=True)
    return tf.reshape(tf.broadcast_to(mean, grouped.shape), [count, channels])
