"""A small model with its trainer and its images, for a few steps."""

import keras
import numpy as np
import tensorflow as tf

from bdm_tf.data import InMemoryImages, training_dataset
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.model import Model
from bdm_tf.networks import UNet
from bdm_tf.objectives import PredictionMSE
from bdm_tf.training.state import TrainState
from bdm_tf.training.trainer import Trainer
from tests.small_network import Convolutions


def short_run(optimizer, replicas=1, remat=False, network=None, labels=False, **settings):
    """Returns a trainer, its state and its batches; `optimizer` makes the optimizer.

    `network` is made in place of a small UNet; with labels images are of three classes.
    """
    names = [f"CPU:{i}" for i in range(replicas)]
    strategy = (
        tf.distribute.MirroredStrategy(names)
        if replicas > 1
        else tf.distribute.OneDeviceStrategy(names[0])
    )
    keras.utils.set_random_seed(0)
    small = dict(channels=8, channel_multipliers=(1,), num_res_blocks=1, remat=remat)
    classes = (
        dict(class_names=["a", "b", "c"], class_counts=[7, 7, 6], label_dropout=0.4)
        if labels
        else {}
    )
    with strategy.scope():
        model = Model(
            (8, 8, 1),
            network or (lambda **kwargs: UNet(**small, **kwargs)),
            BlurringProcess,
            PredictionMSE(),
            **classes,
        )
        state = TrainState(model.network, model.ema_network, optimizer())
    defaults = dict(batch_size=8, seed=3, ema_decay=0.9, clip_norm=0.5, jit_compile=False)
    trainer = Trainer(strategy=strategy, model=model, state=state, **(defaults | settings))
    array = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype(np.uint8)
    dataset = strategy.distribute_datasets_from_function(
        lambda _: training_dataset(
            InMemoryImages(array, class_names="abc", labels=lambda: np.arange(20) % 3),
            batch_size=8,
            seed=0,
            first_step=0,
            flip=True,
            replica_batch_size=8 // replicas,
            with_labels=labels,
        )
    )
    return trainer, state, iter(dataset)


def weights_and_averages(optimizer, count):
    """The weights and the averages after each of `count` steps, flat."""
    trainer, state, batches = short_run(optimizer, network=Convolutions)
    found = []
    for _ in range(count):
        trainer.run(batches, 1)
        lists = state.weights, state.ema_weights
        found.append([np.concatenate([v.numpy().ravel() for v in some]) for some in lists])
    return found
