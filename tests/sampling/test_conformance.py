"""What holds for every sampler: seeds, batches, graphs, XLA, SavedModels, replicas."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import projections, sampling
from bdm_tf.grids import TimeGrid
from bdm_tf.projections import Projection
from bdm_tf.sampling.sampler import Sampler
from tests.conftest import ROOT, run
from tests.sampling.conformance import CASES, draw

EACH = pytest.mark.parametrize("name", CASES)


def test_the_list_has_every_sampler_grid_and_projection():
    cases = [case() for case in CASES.values()]
    found = {type(sampler) for sampler, _ in cases} | {type(s.grid) for s, _ in cases}
    found |= {type(denoiser.projection) for _, denoiser in cases}
    known = {getattr(sampling, name) for name in sampling.__all__}
    known |= {v for v in vars(projections).values() if isinstance(v, type)}
    kinds = (Sampler, TimeGrid, Projection)
    known = {k for k in known if issubclass(k, kinds)} - {*kinds}
    assert known == found


@EACH
def test_an_image_depends_on_seed_and_number_alone(name):
    case = CASES[name]()
    whole = draw(case, count=5)
    np.testing.assert_allclose(whole[2:], draw(case, count=3, first=2), atol=1e-5)
    assert np.abs(whole - draw(case, count=5, seed=(0, 8))).max() > 0.02
    assert np.isfinite(whole).all()


SCRIPT = """
import sys
root, folder = sys.argv[1:]
sys.path.insert(0, root)
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.sampling.conformance import CASES, STEPS, draw

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for name, make in CASES.items():
    case = make()
    expected = draw(case).numpy()

    def check(found, how):
        np.testing.assert_allclose(found, expected, atol=2e-5, err_msg=f"{name}: {how}")

    check(tf.function(lambda: draw(case), jit_compile=True)(), "XLA")

    def on_replica():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        return draw(case, count=2, first=2 * number)

    parts = strategy.run(tf.function(on_replica, autograph=False))
    check(np.concatenate(strategy.experimental_local_results(parts)), "two replicas")

    module = tf.Module()
    module.prior = dict(case[1].prior.variables)
    module.sample = tf.function(
        lambda n: draw(case, num_steps=n), input_signature=[tf.TensorSpec([], tf.int32)],
        autograph=False,
    )
    tf.saved_model.save(module, f"{folder}/{name}")
    loaded = tf.saved_model.load(f"{folder}/{name}")
    check(loaded.sample(tf.constant(STEPS)), "SavedModel")
print("same:", len(CASES))
"""


def test_graph_xla_replicas_and_saved_model_draw_the_same(tmp_path):
    result = run([sys.executable, "-c", SCRIPT, ROOT, str(tmp_path)], timeout=1200)
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"same: {len(CASES)}" in result.stdout


def test_a_number_of_steps_may_be_a_tensor():
    case = CASES["2M"]()
    drawn = tf.function(lambda n: draw(case, num_steps=n))(tf.constant(9))
    np.testing.assert_allclose(drawn, draw(case, num_steps=9), atol=1e-5)
