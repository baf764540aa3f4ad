"""Group normalisation that reads the image as seldom as it can."""

from __future__ import annotations

import keras
import tensorflow as tf

from bdm_tf.networks.fused_norm import EPSILON, Kind, fused_norm


def group_count(channels: int) -> int:
    """The largest divisor of `channels` that is at most 32."""
    return max(g for g in range(1, min(32, channels) + 1) if channels % g == 0)


class GroupNorm(keras.layers.Layer):
    """Group normalisation (Wu & He 2018), and what follows it in a block.

    Everything is float32 whatever comes in; `[B, H, W, C]` in and out, same dtype.
    """

    def __init__(self, channels: int, *, name: str):
        super().__init__(name=name, dtype="float32", autocast=False)
        self.groups = group_count(channels)
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros")
        self.built = True

    def call(self, x, modulation=None, *, swish=False, dropout=0.0, seed=None, fused=False):
        """Returns `(gamma x_norm + beta) (1 + scale) + shift`, and more if asked.

        Args:
            x: images.
            modulation: `[B, 2 C]`, each image's scale and shift; None for none.
            swish: whether `y sigmoid(y)` is taken of the result.
            dropout: the rate of dropout after that.
            seed: of dropout, int32 `[2]`; None is no dropout.
            fused: whether `fused_norm` does it, which wants a static shape.
        """
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        if fused:
            kind = Kind(self.groups, swish, dropout)
            return fused_norm(x, gamma, beta, modulation, kind=kind, dropout_seed=seed)
        if modulation is None:
            ones = tf.ones([tf.shape(x)[0], 1])
            factor, offset = gamma * ones, beta * ones
        else:
            scale, shift = tf.split(tf.cast(modulation, tf.float32), 2, axis=1)
            factor, offset = gamma * (1.0 + scale), beta * (1.0 + scale) + shift
        y = group_norm(tf.cast(x, tf.float32), factor, offset, groups=self.groups)
        y = tf.cast(y, x.dtype)
        y = tf.nn.silu(y) if swish else y
        if seed is None:
            return y
        # The device's own generator: on a TPU, Philox would take half of the step's cycles.
        return tf.nn.experimental.stateless_dropout(y, dropout, seed=seed, rng_alg="auto_select")


def group_norm(x: tf.Tensor, factor: tf.Tensor, offset: tf.Tensor, *, groups: int) -> tf.Tensor:
    """Returns `factor (x - mean) / std + offset`, mean and std over H, W and a group's channels.

    Sums run per channel and are combined per group, so that the image is read once for them and
    once for a single multiply-add; the gradient is written out in the same two passes, of which
    automatic differentiation makes nine.

    Args:
        x: float32 `[B, H, W, C]`.
        factor, offset: float32 `[B, C]`.
        groups: number of groups, a divisor of C.
    """
    _, height, width, channels = x.shape

    def over_group(per_channel):
        """The mean of `[B, C]` over each group, for each of its channels."""
        grouped = tf.reshape(per_channel, [-1, groups, channels // groups])
        mean = tf.reduce_mean(grouped, axis=2, keepdims=True)
        return tf.reshape(tf.broadcast_to(mean, tf.shape(grouped)), [-1, channels])

    @tf.custom_gradient
    def normalise(x, factor, offset):
        mean = over_group(tf.reduce_mean(x, axis=[1, 2]))
        second = over_group(tf.reduce_mean(tf.square(x), axis=[1, 2]))
        precision = tf.math.rsqrt(tf.maximum(second - tf.square(mean), 0.0) + EPSILON)
        slope = factor * precision

        def gradient(dy):
            dy_sum = tf.reduce_sum(dy, axis=[1, 2])
            dy_x_sum = tf.reduce_sum(dy * x, axis=[1, 2])
            by_mean = over_group(factor * dy_sum) / (height * width)
            by_second = over_group(factor * dy_x_sum) / (height * width)
            curvature = (by_mean * mean - by_second) * precision**3
            constant = -curvature * mean - by_mean * precision
            dx = dy * _wide(slope) + (x * _wide(curvature) + _wide(constant))
            return dx, (dy_x_sum - mean * dy_sum) * precision, dy_sum

        return x * _wide(slope) + _wide(offset - mean * slope), gradient

    return normalise(x, factor, offset)


def _wide(per_channel: tf.Tensor) -> tf.Tensor:
    return per_channel[:, None, None, :]
