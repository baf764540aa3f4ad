"""One, two and four replicas, parts of a batch, and recomputed activations: the same steps."""

import sys

import pytest

from tests.conftest import NO_ADDONS, ROOT, run

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
import keras
from bdm_tf.training.adam import FusedAdam
from tests.small_network import Convolutions
from tests.training.short_runs import short_run

def three_steps(**given):
    trainer, state, batches = short_run(**given)
    records = trainer.run(batches, 3)
    images = np.random.default_rng(1).uniform(-1, 1, (9, 8, 8, 1)).astype(np.float32)
    return (records, np.array(trainer.eval_loss(images)), [v.numpy() for v in state.weights],
            [v.numpy() for v in state.ema_weights])

def sgd(): return keras.optimizers.SGD(0.1)
def adam(): return FusedAdam(learning_rate=1e-3, epsilon=1e-4)
def lookahead():
    import tensorflow_addons as tfa
    within = tfa.optimizers.LazyAdam(learning_rate=1e-3, epsilon=1e-4)
    return tfa.optimizers.Lookahead(within, sync_period=2)
def moving_average():
    import tensorflow_addons as tfa
    within = tfa.optimizers.AdamW(learning_rate=1e-3, epsilon=1e-4, weight_decay=1e-3)
    return tfa.optimizers.MovingAverage(within, average_decay=0.5)
def swa():
    import tensorflow_addons as tfa
    within = tfa.optimizers.LAMB(learning_rate=1e-3, epsilon=1e-4)
    return tfa.optimizers.SWA(within, start_averaging=1, average_period=1)

expected = {}
for case in sys.argv[2:]:
    given = eval(f"dict({case})")
    kind = given["optimizer"], given.get("network"), given.get("labels", False)
    if kind not in expected:
        expected[kind] = three_steps(optimizer=kind[0], network=kind[1], labels=kind[2])
    one, found = expected[kind], three_steps(**given)
    np.testing.assert_allclose(one[0], found[0], rtol=2e-5, atol=1e-6, err_msg=case)
    np.testing.assert_allclose(one[1], found[1], rtol=1e-5, err_msg=case)
    for a, b in zip(one[2] + one[3], found[2] + found[3]):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=case)
"""

CASES = {  # on a UNet, or on a network that is built sooner
    "XLA": ["replicas=1, optimizer=sgd, jit_compile=True"],
    "two replicas": ["replicas=2, optimizer=sgd"],
    "two replicas, Adam": ["replicas=2, optimizer=adam, network=Convolutions"],
    "four replicas": ["replicas=4, optimizer=sgd, network=Convolutions"],
    "labels": ["replicas=2, optimizer=sgd, labels=True, accumulation_steps=2"],
    "parts of the batch": [
        "replicas=1, optimizer=adam, network=Convolutions, accumulation_steps=4",
        "replicas=2, optimizer=adam, network=Convolutions, accumulation_steps=2",
    ],
    "recomputed activations": [
        "replicas=1, optimizer=sgd, remat=True",
        "replicas=1, optimizer=sgd, remat=True, accumulation_steps=2, jit_compile=True",
    ],
}
ADDONS = [
    f"replicas=2, optimizer={optimizer}, network=Convolutions"
    for optimizer in ("lookahead", "moving_average", "swa")
]
SLOW = ("recomputed activations", "XLA")


def steps_agree(cases):
    result = run([sys.executable, "-c", SCRIPT, ROOT, *cases])
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow if c in SLOW else ()) for c in CASES],
)
def test_the_training_step_is_that_of_one_replica(case):
    steps_agree(CASES[case])


def test_so_it_is_with_the_optimizers_of_tensorflow_addons():
    pytest.importorskip("tensorflow_addons", reason=NO_ADDONS)
    steps_agree(ADDONS)
