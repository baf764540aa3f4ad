"""Previews: drawn a few at a time, on any number of replicas, the same pictures."""

import sys

from tests.conftest import ROOT, run

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.model import Model
from bdm_tf.sample_settings import SampleSettings
from bdm_tf.objectives import PredictionMSE
from bdm_tf.parametrisations import PredictX
from bdm_tf.sampling import DDIMSampler
from bdm_tf.training.previews import previewer
from tests.small_network import Convolutions

seen = []

class Watched(Convolutions):
    def call(self, z_t, t, dropout_seed=None):
        rounds = tf.config.experimental.tensor_float_32_execution_enabled()
        seen.append((z_t.shape[0], rounds))
        return 2.0 * super().call(z_t, t)

def drawn(strategy, count, at_a_time):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = Model((8, 8, 1), Watched, BlurringProcess, PredictionMSE(), PredictX())
    preview = previewer(model, SampleSettings(DDIMSampler(), 3), strategy, count, 7, at_a_time)
    seen.clear()
    images = preview()
    assert len(images) == count
    return images

one = tf.distribute.OneDeviceStrategy("CPU:0")
whole = drawn(one, 9, 100)
assert set(seen) == {(9, False)}, seen
assert len(np.unique(whole, axis=0)) == 9
for strategy, count, chunk in (
    (one, 9, 3), (one, 4, 4), (tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), 9, 3)
):
    found = drawn(strategy, count, 4)
    assert set(seen) == {(chunk, False)}, seen
    np.testing.assert_allclose(found.astype(int), whole[:count].astype(int), atol=1)
assert tf.config.experimental.tensor_float_32_execution_enabled()
"""


def test_previews_do_not_depend_on_how_many_are_drawn_at_a_time():
    result = run([sys.executable, "-c", SCRIPT, ROOT])
    assert result.returncode == 0, result.stderr[-3000:]
