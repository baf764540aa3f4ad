"""Networks f_theta(z_t, t)."""

from bdm_tf.networks.frequency_unet import FrequencyUNet
from bdm_tf.networks.unet import UNet

__all__ = ["FrequencyUNet", "UNet"]
