"""The blocks of the UNet: residual block, self-attention, time embedding."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from bdm_tf.networks.group_norm import GroupNorm


def embed_time(t: tf.Tensor, size: int) -> tf.Tensor:
    """Sinusoids of 1000 t at `size / 2` geometric frequencies; `[B]` -> `[B, size]`, float32."""
    half = size // 2
    rates = tf.exp(tf.range(half, dtype=tf.float32) * (-math.log(10000.0) / max(half - 1, 1)))
    angles = 1000.0 * t[:, None] * rates[None, :]
    embedding = tf.concat([tf.sin(angles), tf.cos(angles)], axis=1)
    return tf.pad(embedding, [[0, 0], [0, size - 2 * half]])


def recomputed(function, *inputs: tf.Tensor) -> tf.Tensor:
    """`function(*inputs)`, whose insides are computed again for the gradient, not kept.

    `tf.recompute_grad` does that too, but XLA sees through what it delays the second computation
    by, and merges it with the first.
    """

    @tf.custom_gradient
    def once(*inputs):
        result = function(*inputs)

        def gradient(upstream, variables=()):
            first = tf.cast(tf.reshape(upstream, [-1])[0], tf.float32)
            nothing = tf.where(tf.math.is_nan(first), first, 0.0)  # 0, once upstream is known
            delayed = [x + tf.cast(nothing, x.dtype) for x in inputs]
            with tf.GradientTape() as tape:
                tape.watch(delayed)
                again = function(*delayed)
            found = tape.gradient(again, [*delayed, *variables], output_gradients=upstream)
            return found[: len(inputs)], found[len(inputs) :]

        return result, gradient

    return once(*inputs)


def conv(filters: int, in_channels: int, *, name: str, dtype, zeros: bool = False, size: int = 3):
    """A built `Conv2D` with LeCun normal (or zero) weights."""
    layer = keras.layers.Conv2D(
        filters,
        size,
        padding="same",
        data_format="channels_last",
        kernel_initializer="zeros" if zeros else "lecun_normal",
        name=name,
        dtype=dtype,
    )
    layer.build((None, None, None, in_channels))
    return layer


def dense(units: int, in_units: int, *, name: str, dtype, zeros: bool = False, bias: bool = True):
    """A built `Dense` with LeCun normal (or zero) weights."""
    layer = keras.layers.Dense(
        units,
        use_bias=bias,
        kernel_initializer="zeros" if zeros else "lecun_normal",
        name=name,
        dtype=dtype,
    )
    layer.build((None, in_units))
    return layer


class ResBlock(keras.layers.Layer):
    """GroupNorm, swish, [resample], conv, GroupNorm modulated by the time, swish, dropout, conv.

    What it takes of the time is `swish(embedding)`, which all blocks share.

    Args:
        in_channels, channels: what comes in and goes out.
        embedding_size: width of the time embedding.
        dropout: rate, above 0; used only when a dropout seed is given.
        resample: None, "down" (2x2 mean) or "up" (nearest).
    """

    def __init__(
        self, in_channels, channels, *, embedding_size, dropout, name, dtype, resample=None
    ):
        super().__init__(name=name, dtype=dtype)
        self.dropout = dropout
        self.resample = {None: lambda x: x, "down": _downsample, "up": _upsample}[resample]
        self.norm1 = GroupNorm(in_channels, name=f"{name}_norm1")
        self.conv1 = conv(channels, in_channels, name=f"{name}_conv1", dtype=dtype)
        self.modulation = dense(2 * channels, embedding_size, name=f"{name}_time", dtype=dtype)
        self.norm2 = GroupNorm(channels, name=f"{name}_norm2")
        self.conv2 = conv(channels, channels, name=f"{name}_conv2", dtype=dtype, zeros=True)
        self.shortcut = None
        if in_channels != channels:
            self.shortcut = conv(
                channels, in_channels, name=f"{name}_shortcut", dtype=dtype, size=1
            )
        self.built = True

    def call(self, x, embedding, dropout_seed=None, fused=False):
        h = self.resample(self.norm1(x, swish=True, fused=fused))
        x = self.resample(x)
        h = self.norm2(
            self.conv1(h),
            self.modulation(embedding),
            swish=True,
            dropout=self.dropout,
            seed=dropout_seed,
            fused=fused,
        )
        h = self.conv2(h)
        return h + (x if self.shortcut is None else self.shortcut(x))


class SelfAttention(keras.layers.Layer):
    """GroupNorm, multi-head attention over all pixels, zero-initialised projection, residual."""

    def __init__(self, channels: int, *, head_dim: int, name: str, dtype):
        super().__init__(name=name, dtype=dtype)
        self.head_dim = min(head_dim, channels)
        if channels % self.head_dim:
            raise ValueError(f"head_dim={head_dim} does not divide {channels} channels")
        self.heads = channels // self.head_dim
        self.norm = GroupNorm(channels, name=f"{name}_norm")
        self.qkv = dense(3 * channels, channels, name=f"{name}_qkv", dtype=dtype)
        self.out = dense(channels, channels, name=f"{name}_out", dtype=dtype, zeros=True)
        self.built = True

    def call(self, x, fused=False):
        _, height, width, channels = x.shape
        h = tf.reshape(self.norm(x, fused=fused), [-1, height * width, channels])
        qkv = tf.reshape(self.qkv(h), [-1, height * width, 3, self.heads, self.head_dim])
        q, k, v = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))  # [B, heads, HW, head_dim]
        logits = tf.matmul(q * self.head_dim**-0.5, k, transpose_b=True)
        weights = tf.cast(tf.nn.softmax(tf.cast(logits, tf.float32)), v.dtype)
        h = tf.transpose(tf.matmul(weights, v), [0, 2, 1, 3])
        h = self.out(tf.reshape(h, [-1, height * width, channels]))
        return x + tf.reshape(h, [-1, height, width, channels])


def _downsample(x):
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")


def _upsample(x):
    """Nearest neighbour by broadcasting: XLA has no gradient for resize."""
    _, height, width, channels = x.shape
    x = tf.reshape(x, [-1, height, 1, width, 1, channels])
    x = tf.tile(x, [1, 1, 2, 1, 2, 1])
    return tf.reshape(x, [-1, 2 * height, 2 * width, channels])
