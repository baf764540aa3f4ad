"""Training steps of a model on the same random images, for what is timed."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bdm_tf.model import Model
from bdm_tf.training.optimizers import WarmUp, make_optimizer
from bdm_tf.training.state import TrainState
from bdm_tf.training.strategy import default_jit_compile
from bdm_tf.training.trainer import Trainer


def steps_on_noise(model: Model, batch_size: int) -> Callable[[int], np.ndarray]:
    """What takes so many steps, as `train` does."""
    strategy = tf.distribute.get_strategy()
    optimizer = make_optimizer(None, WarmUp(2e-4, 1000))
    trainer = Trainer(
        strategy=strategy,
        model=model,
        state=TrainState(model.network, model.ema_network, optimizer),
        batch_size=batch_size,
        seed=0,
        ema_decay=0.9999,
        clip_norm=1.0,
        jit_compile=default_jit_compile(strategy),
    )
    images = np.random.default_rng(0).uniform(-1, 1, (batch_size, *model.image_shape))
    batch = {"image": np.float32(images), "row": 0}
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    return lambda count: trainer.run(batches, count)
