"""Small processes, networks and images that the tests of models share."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess, BlurSchedule, CosineSchedule
from bdm_tf.diffusion.bases import DCT, MatrixBasis, PixelBasis
from bdm_tf.diffusion.blur_schedules import CumulativeBlur, LogBlur
from bdm_tf.diffusion.noise_schedules import ConstantNoise, GeometricNoise
from bdm_tf.diffusion.progressive import ProgressiveNoise
from bdm_tf.diffusion.relay import LogNormalNoise, PatchDCT
from bdm_tf.diffusion.shaped_noise import BlockNoise, EqualSNRNoise, PowerLawNoise
from bdm_tf.diffusion.warm import BlurByNoise
from bdm_tf.parametrisations import PredictEps, PredictResidual, PredictV, PredictX
from bdm_tf.spectrum import Spectrum
from tests import oracle

TIMES = np.float32([0.05, 0.2, 0.4, 0.7])
EVERY = [PredictEps(), PredictX(), PredictResidual(), PredictV()]
SPECTRUM = Spectrum(np.zeros((4, 4, 2)), np.geomspace(0.3, 0.01, 32).reshape(4, 4, 2))
EACH = pytest.mark.parametrize("parametrisation", EVERY, ids=lambda p: type(p).__name__)


def blurring(sigma_blur_max=2.0, basis=None):
    blur = BlurSchedule(sigma_blur_max, min_scale=0.001)
    return BlurringProcess((4, 4, 2), basis=basis, noise=CosineSchedule(), blur=blur)


def variance_preserving():
    return BlurringProcess((4, 4, 2), blur=BlurSchedule(2.0), variance_preserving=True)


def exploding(sigma_max=80.0):
    """EDM's process."""
    noise = GeometricNoise(0.002, sigma_max)
    return BlurringProcess((4, 4, 2), noise=noise, blur=BlurSchedule(0.0))


def ihdm(num_steps=10, sigma=0.02):
    blur = LogBlur(0.5, 3.0, num_steps=num_steps)
    return BlurringProcess((4, 4, 2), noise=ConstantNoise(sigma), blur=blur)


def cold():
    return BlurringProcess((4, 4, 2), noise=ConstantNoise(0.0), blur=CumulativeBlur())


def relay(basis=None):
    """Relay Diffusion's process, in patches that 4x4 pixels have some of."""
    noise, blur, basis = BlockNoise(LogNormalNoise()), BlurSchedule(3.0), basis or PatchDCT(2)
    return BlurringProcess((4, 4, 2), basis=basis, noise=noise, blur=blur)


def progressive(sigma_last=0.08):
    """Progressive deblurring's process, with less blur for so few pixels."""
    noise = ProgressiveNoise(sigma_last=sigma_last)
    return BlurringProcess((4, 4, 2), noise=noise, blur=BlurSchedule(0.0))


def warm(ratio=0.5, sigma_max=80.0):
    """Warm Diffusion's process."""
    noise = GeometricNoise(0.002, sigma_max)
    return BlurringProcess((4, 4, 2), noise=noise, blur=BlurByNoise(noise, ratio))


def power_law(exponent=-0.5):
    noise = PowerLawNoise(exponent=exponent, offset=0.1)
    return BlurringProcess((4, 4, 2), noise=noise, blur=BlurSchedule(0.0))


def equal_snr(spectrum):
    process = BlurringProcess((4, 4, 2), noise=EqualSNRNoise(), blur=BlurSchedule(0.0))
    process.use_spectrum(spectrum)
    return process


PROCESSES = {
    "blur": blurring(),
    "no blur": blurring(0.0),
    "pixels": blurring(0.0, PixelBasis()),
    "not orthonormal": blurring(2.0, MatrixBasis(np.eye(4) + 0.3 * np.eye(4, k=1), np.eye(4))),
    "IHDM": ihdm(),
    "patches, noise of blocks": relay(),
    "noise by a power law": power_law(),
    "whole image, noise of blocks": relay(basis=DCT()),
    "noise by the spectrum": equal_snr(SPECTRUM),
    "progressive": progressive(),
    "warm": warm(),
}


def draw(seed=0, shape=(4, 4, 4, 2)):
    rng = np.random.default_rng(seed)
    x, noise = rng.uniform(-1, 1, shape), rng.normal(size=shape)
    return tf.constant(x, tf.float32), tf.constant(noise, tf.float32)


def small_network(z_t, t):
    """Two fixed layers over the channels and their neighbours, and the time."""
    kernels = np.random.default_rng(9).normal(size=(2, 3, 3, 2, 2)).astype(np.float32) * 0.3
    hidden = tf.nn.tanh(tf.nn.conv2d(z_t, kernels[0], 1, "SAME") + tf.reshape(t, [-1, 1, 1, 1]))
    return tf.nn.conv2d(hidden, kernels[1], 1, "SAME")


def answering(parametrisation, process, *, x, eps, t):
    """A denoiser whose network knows the image and the noise."""

    def network(z_t, t):
        return parametrisation.target(process, x=x, eps=eps, z_t=z_t, t=t)

    return Denoiser(network, process, parametrisation=parametrisation)


def heated(x, sigma_blur):
    """A_k x in float64 for a blur of each image."""
    n = np.pi * np.arange(4) / 4
    squared = (n[:, None] ** 2 + n**2)[None, :, :, None]
    tau = np.reshape(sigma_blur, [-1, 1, 1, 1]) ** 2 / 2
    return oracle.to_pixel(np.exp(-squared * tau) * oracle.to_frequency(np.float64(x)))
