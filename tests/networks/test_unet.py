"""The UNet: the paper's sizes, non-square images, dtypes, dropout."""

import os

import gin
import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import config, data, diffusion, exporting, objectives, sampling  # noqa: F401, for gin
from bdm_tf.networks import UNet
from bdm_tf.system.errors import UserError
from bdm_tf.training import loop  # noqa: F401, for gin
from tests.conftest import ROOT

GIN = os.path.join(ROOT, "gin")
SMALL = dict(
    channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,), head_dim=4
)


def gin_unet(file, shape):
    config.parse([os.path.join(GIN, file)], [])
    return gin.get_configurable("UNet")(shape)


@pytest.mark.parametrize(
    "file, side, parameters",
    [
        ("cifar10.gin", 32, 60_004_099),
        ("lsun_church_64.gin", 64, 131_226_371),
        ("lsun_church_128.gin", 128, 139_576_771),
    ],
)
def test_the_papers_networks_have_their_parameter_counts(file, side, parameters):
    network = gin_unet(file, (side, side, 3))
    assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == parameters


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_output_and_variables_are_float32_for_non_square_images(dtype):
    network = UNet((16, 8, 3), dtype=dtype, **SMALL)
    out = network(tf.random.normal([2, 16, 8, 3], seed=0), tf.constant([0.1, 0.9]))
    assert out.shape == (2, 16, 8, 3) and out.dtype == tf.float32
    assert {tf.as_dtype(v.dtype) for v in network.trainable_variables} == {tf.float32}


def test_bfloat16_keeps_close_to_float32():
    networks = [UNet((8, 8, 1), dtype=d, **SMALL) for d in ("float32", "mixed_bfloat16")]
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.1, v.shape) for v in networks[0].trainable_variables]
    for network in networks:
        for variable, value in zip(network.trainable_variables, weights):
            variable.assign(value)
    z_t = tf.constant(rng.normal(size=(2, 8, 8, 1)), tf.float32)
    exact, rounded = (n(z_t, tf.constant([0.1234, 0.1236])).numpy() for n in networks)
    assert np.std(exact - rounded) < 0.05 * np.std(exact)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(UserError, match="divisible by 2"):
        UNet((9, 8, 1), **SMALL)


def test_what_is_no_truth_value_is_refused():
    with pytest.raises(UserError, match="UNet.remat='no' must be True or False"):
        UNet((8, 8, 1), remat="no", **SMALL)


def test_dropout_needs_a_seed_and_follows_it():
    network = UNet((8, 8, 1), dropout=0.5, **SMALL)
    for variable in network.trainable_variables:
        variable.assign(tf.random.stateless_normal(variable.shape, [1, 2]) * 0.1)
    z_t, t = tf.ones([1, 8, 8, 1]), tf.constant([0.5])
    plain, a, again, b = (
        network(z_t, t, seed).numpy()
        for seed in (None, tf.constant([0, 1]), tf.constant([0, 1]), tf.constant([0, 2]))
    )
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - b).max() > 0 and np.abs(a - plain).max() > 0


def test_attention_at_a_resolution_that_no_level_has_is_warned_of(caplog):
    UNet((8, 8, 1), **SMALL)
    assert caplog.records == []
    UNet((12, 8, 1), **{**SMALL, "attention_resolutions": (4, 7)})
    assert "no level of images of 12x8 is of [7], but of [8, 4]" in caplog.text
