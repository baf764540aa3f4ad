"""The network that sees frequencies: a UNet between two transforms."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.diffusion.bases import DCT
from bdm_tf.networks import UNet
from bdm_tf.networks.frequency_unet import FrequencyUNet
from bdm_tf.objectives import PredictionMSE
from bdm_tf.system.keras_versions import raw_variables
from tests import oracle
from tests.toy_models import draw

SMALL_UNET = functools.partial(
    UNet, channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,)
)


@pytest.fixture(scope="module")
def frequency_unet():
    network = FrequencyUNet((8, 8, 3), basis=DCT(), network=SMALL_UNET)
    rng = np.random.default_rng(0)
    for variable in network.trainable_variables:  # the last layer starts with zeros
        variable.assign(rng.normal(size=variable.shape) * 0.2)
    return network


def test_a_frequency_unet_is_the_unet_between_two_transforms(frequency_unet):
    z_t, _ = draw(shape=(2, 8, 8, 3))
    t = tf.constant([0.2, 0.9])
    u_t = tf.constant(oracle.to_frequency(np.float64(z_t)), tf.float32)
    expected = oracle.to_pixel(np.float64(frequency_unet.network(u_t, t)))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(frequency_unet(z_t, t), expected, atol=1e-4)


def test_a_frequency_unet_has_the_variables_of_a_unet(frequency_unet):
    shapes = [v.shape for v in SMALL_UNET(image_shape=(8, 8, 3)).trainable_variables]
    assert [v.shape for v in frequency_unet.trainable_variables] == shapes
    assert len(shapes) > 50


def test_every_variable_of_a_frequency_unet_learns(frequency_unet):
    x, noise = draw(shape=(2, 8, 8, 3))
    denoiser = Denoiser(frequency_unet, BlurringProcess((8, 8, 3)))
    with tf.GradientTape() as tape:
        loss = PredictionMSE()(denoiser, x, tf.constant([0.2, 0.9]), noise)
    variables = raw_variables(frequency_unet.trainable_variables)
    for variable, gradient in zip(variables, tape.gradient(loss, variables)):
        assert np.abs(gradient).max() > 0, variable.name
