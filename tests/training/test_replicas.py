"""Two replicas take the training step that one takes."""

import subprocess
import sys

SCRIPT = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from bdm_tf.data import InMemoryImages, training_dataset
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.networks import UNet
from bdm_tf.model import Model
from bdm_tf.objectives import PredictionMSE
from bdm_tf.training.state import TrainState
from bdm_tf.training.strategy import make_strategy
from bdm_tf.training.trainer import Trainer

def two_steps(strategy):
    keras.utils.set_random_seed(0)
    small = dict(channels=8, channel_multipliers=(1, 2), num_res_blocks=1)
    with strategy.scope():
        model = Model((8, 8, 1), lambda **kwargs: UNet(**small, **kwargs), BlurringProcess,
                      PredictionMSE())
        optimizer = keras.optimizers.SGD(0.1)
        state = TrainState(model.network, model.ema_network, optimizer)
    array = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype(np.uint8)
    trainer = Trainer(strategy=strategy, model=model, state=state, batch_size=8, seed=3,
                      ema_decay=0.9, clip_norm=0.5, jit_compile=False)
    pieces = 8 // strategy.num_replicas_in_sync
    iterator = iter(strategy.distribute_datasets_from_function(
        lambda _: training_dataset(InMemoryImages(array), batch_size=8, seed=0, first_step=0,
                                   flip=True, replica_batch_size=pieces)))
    records = trainer.run(iterator, 3)
    return records, [v.numpy() for v in state.weights], [v.numpy() for v in state.ema_weights]

one, two = two_steps(make_strategy("one_device")), two_steps(make_strategy("mirrored"))
assert make_strategy("mirrored").num_replicas_in_sync == 2
np.testing.assert_allclose(one[0], two[0], rtol=2e-5, atol=1e-6)
for a, b in zip(one[1] + one[2], two[1] + two[2]):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
"""


def test_two_replicas_take_the_same_steps_as_one():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=400
    )
    assert result.returncode == 0, result.stderr[-3000:]
