"""Processes, images and networks that the tests of several samplers share."""

import numpy as np

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.diffusion.blur_schedules import CumulativeBlur, LogBlur
from bdm_tf.diffusion.noise_schedules import ConstantNoise, GeometricNoise
from bdm_tf.parametrisations import PredictX
from tests import oracle

SHAPE = (8, 8, 2)


def blurred(x, sigma_blur):
    """Images in float64, blurred by a Gaussian of that many pixels."""
    n = np.pi * np.arange(x.shape[1]) / x.shape[1]
    squared = (n[:, None] ** 2 + n**2)[None, :, :, None]
    return oracle.to_pixel(np.exp(-squared * sigma_blur**2 / 2) * oracle.to_frequency(x))


def ihdm_sigmas(num_steps, highest):
    return np.concatenate([[0.0], np.geomspace(0.5, highest, num_steps)])


def cold_sigmas(num_steps=50):
    widths = 0.35 + 0.01 * np.arange(num_steps)
    return np.sqrt(np.concatenate([[0.0], np.cumsum(widths**2)]))


def ihdm(num_steps=200, highest=6.0, sigma=0.02, min_scale=0.0, shape=SHAPE):
    blur = LogBlur(0.5, highest, num_steps=num_steps, min_scale=min_scale)
    return BlurringProcess(shape, noise=ConstantNoise(sigma), blur=blur)


def cold(sigma=0.0):
    return BlurringProcess(SHAPE, noise=ConstantNoise(sigma), blur=CumulativeBlur())


def soft():
    return BlurringProcess(SHAPE, noise=GeometricNoise(0.01, 0.1), blur=LogBlur(0.01, 6.0))


def levels(count=1, shape=SHAPE):
    """Random images with quarters of their own brightness, which blurring leaves visible."""
    height, width, channels = shape
    rng = np.random.default_rng(0)
    quarters = rng.integers(0, 192, (count, 2, 2, channels))
    fine = rng.integers(0, 64, (count, *shape))
    return (quarters.repeat(height // 2, 1).repeat(width // 2, 2) + fine).astype(np.uint8)


def fitted(prior, process, images=None):
    images = levels(shape=process.image_shape) if images is None else images
    prior.restore(prior.fit(lambda: iter([images]), process))
    return prior


def lively(z, t):
    """Some estimate of the image that depends on all that a network sees."""
    t = t if isinstance(t, float) else t[:, None, None, None]
    return 0.7 * z + 0.2 * z[:, ::-1, :, ::-1] - 0.1 * t * z**2 + 0.05 * t


class Spied:
    """A model with a `lively` network, which remembers what it was asked."""

    def __init__(self, process, prior, parametrisation=None, factor=1.0):
        self.times, self.latents = [], []

        def network(z_t, t):
            self.times.append(float(t[0]))
            self.latents.append(np.float64(z_t))
            return factor * lively(z_t, t)

        parametrisation = parametrisation or PredictX()
        self.denoiser = Denoiser(network, process, parametrisation=parametrisation, prior=prior)

    def draw(self, sampler, num_steps, count=3):
        return sampler(self.denoiser, shape=(count, *SHAPE), seed=[0, 7], num_steps=num_steps)
