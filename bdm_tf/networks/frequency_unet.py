"""The paper's ablation of a UNet that sees frequencies (Appendix B)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gin
import keras

from bdm_tf.diffusion.bases import Basis
from bdm_tf.networks.unet import UNet
from bdm_tf.system.errors import check_kind, check_maker


@gin.register(denylist=["output_channels"])
class FrequencyUNet(keras.layers.Layer):
    """f_theta with the UNet in frequency space: it takes u_t and predicts coefficients.

    Both are changed back to pixels outside of it, so that samplers and objectives are those of
    every other network; by Parseval's theorem the error of eps is the same in either space.

    Args:
        image_shape: `(H, W, C)`.
        basis: whose coefficients the UNet sees, as a rule that of the process.
        network: makes the network inside from `image_shape` and `name`.
        num_classes, output_channels: handed to the network inside, see `UNet`.
        name: of the layer.

    Raises:
        UserError: there is no basis, or nothing that makes a network.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        basis=gin.REQUIRED,
        network: Callable = UNet,
        num_classes: int | None = None,
        output_channels: int | None = None,
        name: str = "frequency_unet",
    ):
        check_kind("FrequencyUNet.basis", basis, Basis)
        check_maker("FrequencyUNet.network", network, "@UNet")
        super().__init__(name=name, autocast=False)
        self.basis = basis
        given = {"num_classes": num_classes, "output_channels": output_channels}
        given = {name: value for name, value in given.items() if value is not None}
        self.network = network(image_shape=image_shape, name=f"{name}_inside", **given)
        self.built = True

    def call(self, z_t, t, dropout_seed=None, **label):
        """Predicts in pixel space; see `UNet.call`."""
        u_t = self.basis.to_frequency(z_t)
        return self.basis.to_pixel(self.network(u_t, t, dropout_seed, **label))
