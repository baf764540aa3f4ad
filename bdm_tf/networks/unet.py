"""The paper's UNet (section 6.1, Table 5): that of google-research/diffusion_distillation."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import gin
import keras
import tensorflow as tf
from absl import logging

from bdm_tf.networks.blocks import ResBlock, SelfAttention, conv, dense, embed_time, recomputed
from bdm_tf.networks.fused_norm import suits
from bdm_tf.networks.group_norm import GroupNorm
from bdm_tf.system.errors import UserError, check_between, check_counts, check_flags

_MOST = 10_000
_DTYPES = ("float32", "mixed_bfloat16")


@gin.register(denylist=["output_channels"])
class UNet(keras.layers.Layer):
    """f_theta(z_t, t): images and times to a prediction of the images' shape.

    Args:
        image_shape: `(H, W, C)`; H and W must be divisible by `2^(levels - 1)`.
        channels: channels at the first level.
        channel_multipliers: one factor a level, from full resolution down.
        num_res_blocks: residual blocks a level on the way down; one more on the way up.
        attention_resolutions: a level whose smaller side is listed has attention; one that no
            level has is warned of.
        head_dim: channels of an attention head, capped at the channels there are.
        dropout: rate inside the residual blocks, from 0 to 0.99.
        embedding_multiplier: width of the time embedding over `channels`.
        remat: forget the activations inside residual blocks and compute them again for the
            gradient: memory for about a third more work; the result is the same.
        dtype: Keras dtype policy: "float32" or "mixed_bfloat16". Variables, the time embedding,
            normalisation and the output are float32 in both.
        output_channels: of the prediction; None is C. `Model` hands it over where the
            parametrisation has several heads.
        num_classes: of images with labels; `Model` hands it over. The embedding of a label is added
            to that of the time; one more stands for an image without.

    Raises:
        UserError: the image cannot be halved as often as the levels ask; a parameter is out of
            range.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        attention_resolutions: Sequence[int] = (),
        head_dim: int = 64,
        dropout: float = 0.0,
        embedding_multiplier: int = 4,
        remat: bool = False,
        dtype: str = "float32",
        num_classes: int | None = None,
        output_channels: int | None = None,
        name: str = "unet",
    ):
        check_counts("UNet", 1, _MOST, channels=channels, num_res_blocks=num_res_blocks)
        check_counts("UNet", 1, _MOST, embedding_multiplier=embedding_multiplier)
        check_counts("UNet", 1, head_dim=head_dim)
        check_between("UNet.dropout", dropout, 0, 0.99)
        check_flags("UNet", remat=remat)
        for parameter, values in {
            "channel_multipliers": channel_multipliers,
            "attention_resolutions": attention_resolutions,
        }.items():
            if not isinstance(values, (tuple, list)):
                raise UserError(f"UNet.{parameter}={values!r} must be a list, such as (1, 2)")
            for value in values:
                check_counts("UNet", 1, _MOST, **{parameter: value})
        if not channel_multipliers:
            raise UserError("UNet.channel_multipliers=() must name a level at least, such as (1,)")
        if dtype not in _DTYPES:
            raise UserError(f"UNet.dtype={dtype!r} must be one of {', '.join(_DTYPES)}")
        # Autocasting would round t to bfloat16 before it is embedded.
        super().__init__(name=name, dtype=dtype, autocast=False)
        height, width, image_channels = image_shape
        levels = len(channel_multipliers)
        factor = 2 ** (levels - 1)
        if height % factor or width % factor:
            raise UserError(
                f"images of {height}x{width} cannot be halved {levels - 1} time(s): choose an "
                f"image_size divisible by {factor}, or fewer UNet.channel_multipliers "
                f"(now {tuple(channel_multipliers)})"
            )
        sides = [min(height, width) // 2**level for level in range(levels)]
        if without := sorted(set(attention_resolutions) - set(sides)):
            _warn_once(
                f"UNet.attention_resolutions: no level of images of {height}x{width} is of "
                f"{without}, but of {sides}"
            )
        self.channels, self.dropout, self.remat = channels, dropout, remat
        size = embedding_multiplier * channels
        self.time1 = dense(size, channels, name="time1", dtype="float32")
        self.time2 = dense(size, size, name="time2", dtype="float32")
        self.num_classes = num_classes
        if num_classes is not None:
            check_counts("UNet", 1, num_classes=num_classes)
            self.labels = dense(size, num_classes + 1, name="labels", dtype="float32", bias=False)
        self.conv_in = conv(channels, image_channels, name="conv_in", dtype=dtype)

        def block(inputs, outputs, name, resample=None):
            return ResBlock(
                inputs,
                outputs,
                embedding_size=size,
                dropout=dropout,
                name=name,
                dtype=dtype,
                resample=resample,
            )

        def attention(width_now, level, name):
            if sides[level] not in attention_resolutions:
                return None
            return SelfAttention(width_now, head_dim=head_dim, name=name, dtype=dtype)

        now, skips, down = channels, [channels], []
        for level, multiplier in enumerate(channel_multipliers):
            for i in range(num_res_blocks):
                name_i = f"down_{level}_{i}"
                down.append(block(now, channels * multiplier, name_i))
                now = channels * multiplier
                down.append(attention(now, level, f"{name_i}_attention"))
                skips.append(now)
            if level < levels - 1:
                down += [block(now, now, f"down_{level}_resample", "down"), None]
                skips.append(now)
        middle = [
            block(now, now, "middle_0"),
            SelfAttention(now, head_dim=head_dim, name="middle_attention", dtype=dtype),
            block(now, now, "middle_1"),
        ]
        up = []
        for level in reversed(range(levels)):
            for i in range(num_res_blocks + 1):
                name_i = f"up_{level}_{i}"
                up.append(block(now + skips.pop(), channels * channel_multipliers[level], name_i))
                now = channels * channel_multipliers[level]
                up.append(attention(now, level, f"{name_i}_attention"))
            if level > 0:
                up += [block(now, now, f"up_{level}_resample", "up"), None]
        # Keras tracks layers in lists; None marks "no attention after this block".
        self.down_blocks, self.down_attention = down[::2], _tracked(down[1::2])
        self.middle = middle
        self.up_blocks, self.up_attention = up[::2], _tracked(up[1::2])
        self._down_has = [a is not None for a in down[1::2]]
        self._up_has = [a is not None for a in up[1::2]]
        self._up_takes = ["resample" not in b.name for b in self.up_blocks]
        self.norm_out = GroupNorm(now, name="norm_out")
        outputs = image_channels if output_channels is None else output_channels
        self.conv_out = conv(outputs, now, name="conv_out", dtype="float32", zeros=True)
        self.built = True

    def call(self, z_t, t, dropout_seed=None, label=None):
        """Predicts from `z_t` `[B, H, W, C]` at times `t` `[B]` in [0, 1].

        Args:
            z_t: float32 latent images.
            t: float32 times.
            dropout_seed: int32 `[2]` switches dropout on; None is inference.
            label: classes int32 `[B]`, `num_classes` for an image without; None for none at all.

        Returns:
            float32 `[B, H, W, C]`, or of `output_channels`.
        """
        is_training = dropout_seed is not None
        fused = is_training and z_t.shape.is_fully_defined() and suits(z_t.shape, self.channels)
        embedding = embed_time(t, self.channels)
        embedding = self.time2(tf.nn.silu(self.time1(embedding)))
        if self.num_classes is not None:
            label = tf.fill([tf.shape(t)[0]], self.num_classes) if label is None else label
            count = self.num_classes + 1
            embedding += self.labels(math.sqrt(count) * tf.one_hot(label, count))
        embedding = tf.nn.silu(embedding)
        seeds = _seeds(dropout_seed if self.dropout > 0 else None)
        through = functools.partial(self._through, embedding=embedding, fused=fused)
        h = self.conv_in(z_t)
        skips, attention = [h], iter(self.down_attention)
        for block, has in zip(self.down_blocks, self._down_has):
            h = through(h, next(seeds), block, next(attention) if has else None)
            skips.append(h)
        first, middle_attention, last = self.middle
        h = through(h, next(seeds), first, middle_attention)
        h = through(h, next(seeds), last)
        attention = iter(self.up_attention)
        for block, has, takes in zip(self.up_blocks, self._up_has, self._up_takes):
            h = tf.concat([h, skips.pop()], axis=3) if takes else h
            h = through(h, next(seeds), block, next(attention) if has else None)
        h = tf.cast(h, tf.float32)
        return self.conv_out(self.norm_out(h, swish=True, fused=fused))

    def _through(self, h, seed, block, attention=None, *, embedding, fused):
        def blocks(h, embedding):
            h = block(h, embedding, seed, fused=fused)
            return h if attention is None else attention(h, fused=fused)

        return recomputed(blocks, h, embedding) if self.remat else blocks(h, embedding)


@functools.cache
def _warn_once(text: str) -> None:  # of a network and the average of its weights
    logging.warning(text)


def _tracked(layers):
    return [layer for layer in layers if layer is not None]


def _seeds(seed):
    """A seed for each block in turn, or None for ever."""
    index = 0
    while True:
        yield None if seed is None else tf.random.experimental.stateless_fold_in(seed, index)
        index += 1
