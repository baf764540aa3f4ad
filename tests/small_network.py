"""A network that is nearly nothing, for tests of what is around one."""

import gin
import keras
import tensorflow as tf


@gin.register(denylist=["output_channels"])
class Convolutions(keras.Model):
    """Four, two of them of the same shape."""

    def __init__(self, image_shape, output_channels=None, name=None):
        super().__init__(name=name)
        widths = (4, 4, 4, output_channels or image_shape[-1])
        self.steps = [keras.layers.Conv2D(n, 3, padding="same", activation="tanh") for n in widths]
        self(tf.zeros([1, *image_shape]), tf.zeros([1]))

    def call(self, z_t, t, dropout_seed=None):
        h = z_t + tf.reshape(t, [-1, 1, 1, 1])
        for step in self.steps:
            h = step(h)
        return h
