"""What runs where there is no TensorFlow: training steps, the loss, and the names of the state."""

import numpy as np
import tensorflow as tf

from bdm_tf.data.pipeline import to_unit_range
from bdm_tf.model import Model
from bdm_tf.noise import fold_in, normal_rows, uniform
from bdm_tf.stablehlo.functional import Pure, pure, repeated
from bdm_tf.system.keras_versions import state_of
from bdm_tf.training.state import TrainState
from bdm_tf.training.trainer import Trainer

_FLIP, _ORDER = 3, 4  # what random numbers are for; the trainer has 0, 1 and 2


def named_variables(model: Model, state: TrainState) -> dict[str, tf.Variable]:
    """All that a run has, by the names under which it travels."""
    groups = {
        "weights": state.weights,
        "ema_weights": state.ema_weights,
        "optimizer": state_of(state.optimizer),
    }
    named = {f"{group}/{i}": v for group, all_ in groups.items() for i, v in enumerate(all_)}
    return named | {f"prior/{name}": v for name, v in model.prior.variables.items()}


def training_batch(images: tf.Tensor, number: tf.Tensor, batch_size: int, seed: int, flip: bool):
    """The batch of a step, a function of (seed, number): uint8 `[batch_size, H, W, C]`.

    An epoch is a new permutation, less what does not fill a batch.
    """
    whole = images.shape[0] // batch_size
    epoch, place = number // whole, number % whole
    keys = uniform(fold_in(tf.stack([seed, epoch]), _ORDER), [images.shape[0]])
    order = tf.argsort(keys, stable=True)
    batch = tf.gather(images, tf.slice(order, [place * batch_size], [batch_size]))
    if flip:
        choice = uniform(fold_in(tf.stack([seed, number]), _FLIP), [batch_size])
        batch = tf.where(choice[:, None, None, None] < 0.5, tf.reverse(batch, [2]), batch)
    return batch


def training(
    trainer: Trainer, image_shape: tuple, num_images: int, steps: int, seed: int, flip: bool
) -> Pure:
    """`steps` training steps from images uint8 `[num_images, H, W, C]` and the first's number."""

    def step(image, number):
        batch = {"image": to_unit_range(image), "row": tf.constant(0)}
        return trainer.replica_step(batch, number)

    piece = tf.TensorSpec([trainer.batch_size, *image_shape], tf.uint8)
    one = pure(step, [piece, tf.TensorSpec([], tf.int64)])

    def arguments(i, images, first):
        number = first + i
        batch = training_batch(images, number, trainer.batch_size, seed, flip)
        return batch, tf.cast(number, tf.int64)

    everything = tf.TensorSpec([num_images, *image_shape], tf.uint8)
    return repeated(one, steps, arguments, [everything, tf.TensorSpec([], tf.int32)])


def evaluation(model: Model, num_images: int) -> Pure:
    """The averaged weights' mean loss on uint8 `[num_images, H, W, C]`, with noise of a seed."""
    places = (np.arange(num_images, dtype=np.float32) + 0.5) / num_images

    def loss(images, seed):
        noise = normal_rows(seed, 0, images.shape)
        x, t = to_unit_range(images), model.times_at(tf.constant(places))
        return tf.reduce_mean(model.objective(model.denoiser(), x, t, noise))

    images = tf.TensorSpec([num_images, *model.image_shape], tf.uint8)
    return pure(loss, [images, tf.TensorSpec([2], tf.int32)])
