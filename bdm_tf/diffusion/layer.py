"""The diffusion process as a Keras layer."""

from __future__ import annotations

import keras
import tensorflow as tf

from bdm_tf.diffusion.process import BlurringProcess


class DiffusionLayer(keras.layers.Layer):
    """Draws z_t ~ q(z_t | x) (Eq. 24), in float32 under every dtype policy.

    It is for Keras models of one's own; training here calls `BlurringProcess.diffuse` itself.

    `autocast=False` keeps Keras from rounding images, times and noise to bfloat16 or float16:
    cosine transforms exist in float32 and float64 only, and t needs all its digits.

    Args:
        process: the process to draw from.

    Example:
        layer = DiffusionLayer(BlurringProcess(image_shape=(32, 32, 3)))
        z_t = layer(x, t, eps)  # x, eps: [B, 32, 32, 3]; t: [B]
    """

    def __init__(self, process: BlurringProcess, **kwargs):
        super().__init__(autocast=False, trainable=False, **kwargs)
        self.process = process

    def call(self, x: tf.Tensor, t: tf.Tensor, eps: tf.Tensor) -> tf.Tensor:
        """Returns `z_t`, float32 and shaped like `x`; see `BlurringProcess.diffuse`."""
        x, t, eps = (tf.cast(v, tf.float32) for v in (x, t, eps))
        return self.process.diffuse(x, t, eps)

    def compute_output_shape(self, x_shape, t_shape=None, eps_shape=None):
        return x_shape
