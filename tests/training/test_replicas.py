"""One, two and four replicas, parts of a batch, and recomputed activations: the same steps."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
import keras
from bdm_tf.data import InMemoryImages, training_dataset
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.networks import UNet
from bdm_tf.model import Model
from bdm_tf.objectives import PredictionMSE
from bdm_tf.training.adam import FusedAdam
from bdm_tf.training.state import TrainState
from bdm_tf.training.trainer import Trainer

def three_steps(replicas, optimizer, remat=False, **settings):
    names = [f"CPU:{i}" for i in range(replicas)]
    strategy = (tf.distribute.MirroredStrategy(names) if replicas > 1
                else tf.distribute.OneDeviceStrategy(names[0]))
    keras.utils.set_random_seed(0)
    small = dict(channels=8, channel_multipliers=(1,), num_res_blocks=1, remat=remat)
    with strategy.scope():
        model = Model((8, 8, 1), lambda **kwargs: UNet(**small, **kwargs), BlurringProcess,
                      PredictionMSE())
        state = TrainState(model.network, model.ema_network, optimizer())
    array = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype(np.uint8)
    trainer = Trainer(strategy=strategy, model=model, state=state, batch_size=8, seed=3,
                      ema_decay=0.9, clip_norm=0.5,
                      **{"jit_compile": False, **settings})
    iterator = iter(strategy.distribute_datasets_from_function(
        lambda _: training_dataset(InMemoryImages(array), batch_size=8, seed=0, first_step=0,
                                   flip=True, replica_batch_size=8 // replicas)))
    records = trainer.run(iterator, 3)
    images = np.random.default_rng(1).uniform(-1, 1, (9, 8, 8, 1)).astype(np.float32)
    return (records, np.array(trainer.eval_loss(images)), [v.numpy() for v in state.weights],
            [v.numpy() for v in state.ema_weights])

def sgd(): return keras.optimizers.SGD(0.1)
def adam(): return FusedAdam(learning_rate=1e-3, epsilon=1e-4)

expected = {}
for case in sys.argv[1:]:
    given = eval(f"dict({case})")
    kind = given["optimizer"]
    if kind not in expected:
        expected[kind] = three_steps(1, kind)
    one, found = expected[kind], three_steps(**given)
    np.testing.assert_allclose(one[0], found[0], rtol=2e-5, atol=1e-6, err_msg=case)
    np.testing.assert_allclose(one[1], found[1], rtol=1e-5, err_msg=case)
    for a, b in zip(one[2] + one[3], found[2] + found[3]):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=case)
"""

CASES = {
    "XLA": ["replicas=1, optimizer=sgd, jit_compile=True"],
    "two replicas": ["replicas=2, optimizer=sgd", "replicas=2, optimizer=adam"],
    "four replicas": ["replicas=4, optimizer=sgd", "replicas=4, optimizer=adam"],
    "parts of the batch": [
        "replicas=1, optimizer=adam, accumulation_steps=4",
        "replicas=2, optimizer=adam, accumulation_steps=2",
    ],
    "recomputed activations": [
        "replicas=1, optimizer=adam, remat=True",
        "replicas=1, optimizer=sgd, remat=True, accumulation_steps=2, jit_compile=True",
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_the_training_step_is_that_of_one_replica(case):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *CASES[case]],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-3000:]
