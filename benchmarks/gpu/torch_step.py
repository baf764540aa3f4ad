"""The peer: a training step of the same network in PyTorch, on the same machine.

python benchmarks/gpu/torch_step.py lowered

takes the network's shape from lowered/config.gin (the UNet of bdm_tf/networks) and times steps of
denoising diffusion: bfloat16 autocast, channels_last, torch.compile, fused Adam, averaged weights,
images resident on the device. Needs PyTorch alone. What of ours it leaves out (the change of basis,
a sigma for each frequency) only makes it faster.
"""

import argparse
import ast
import json
import math
import os
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError:
    sys.exit("error: there is no PyTorch here to compare with")


def conv(inputs, outputs, size=3, zeros=False):
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    if zeros:
        nn.init.zeros_(layer.weight)
    return layer


def norm(channels):
    return nn.GroupNorm(min(32, channels), channels)


class ResBlock(nn.Module):
    def __init__(self, inputs, outputs, embedding, dropout, resample=None):
        super().__init__()
        self.resample = resample
        self.norm1, self.conv1 = norm(inputs), conv(inputs, outputs)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.norm2, self.conv2 = norm(outputs), conv(outputs, outputs, zeros=True)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def resampled(self, x):
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0) if self.resample == "up" else x

    def forward(self, x, embedding):
        h = self.conv1(self.resampled(F.silu(self.norm1(x))))
        scale, shift = self.modulation(F.silu(embedding))[:, :, None, None].chunk(2, 1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.shortcut(self.resampled(x)) + self.conv2(self.dropout(h))


class Attention(nn.Module):
    def __init__(self, channels, head_dim):
        super().__init__()
        self.heads = channels // min(head_dim, channels)
        self.norm, self.qkv = norm(channels), nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(self, x):
        batch, channels, height, width = x.shape
        h = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        parts = self.qkv(h).reshape(batch, height * width, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        h = self.out(h.reshape(batch, height * width, channels))
        return x + h.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """The shape of `bdm_tf.networks.UNet`, with the names of its parameters."""

    def __init__(
        self,
        image_shape,
        channels,
        channel_multipliers,
        num_res_blocks,
        attention_resolutions=(),
        head_dim=64,
        dropout=0.0,
    ):
        super().__init__()
        height, width, image_channels = image_shape
        self.channels, levels, size = channels, len(channel_multipliers), 4 * channels
        self.time = nn.Sequential(nn.Linear(channels, size), nn.SiLU(), nn.Linear(size, size))
        self.conv_in = conv(image_channels, channels)
        now, skips = channels, [channels]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()

        def attention(width_now, level):
            has = min(height, width) // 2**level in attention_resolutions
            return Attention(width_now, head_dim) if has else nn.Identity()

        for level, multiplier in enumerate(channel_multipliers):
            for _ in range(num_res_blocks):
                block = ResBlock(now, channels * multiplier, size, dropout)
                now = channels * multiplier
                self.down.append(nn.ModuleList([block, attention(now, level)]))
                skips.append(now)
            if level < levels - 1:
                block = ResBlock(now, now, size, dropout, "down")
                self.down.append(nn.ModuleList([block, nn.Identity()]))
                skips.append(now)
        self.first = ResBlock(now, now, size, dropout)
        self.middle = Attention(now, head_dim)
        self.last = ResBlock(now, now, size, dropout)
        for level in reversed(range(levels)):
            for _ in range(num_res_blocks + 1):
                outputs = channels * channel_multipliers[level]
                block = ResBlock(now + skips.pop(), outputs, size, dropout)
                now = outputs
                self.up.append(nn.ModuleList([block, attention(now, level)]))
            if level > 0:
                block = ResBlock(now, now, size, dropout, "up")
                self.up.append(nn.ModuleList([block, nn.Identity()]))
        self.norm_out, self.conv_out = norm(now), conv(now, image_channels, zeros=True)

    def forward(self, x, t):
        half = self.channels // 2
        rates = torch.exp(torch.arange(half, device=t.device) * (-math.log(1e4) / (half - 1)))
        angles = 1000.0 * t[:, None] * rates
        embedding = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        h = self.conv_in(x)
        skips = [h]
        for block, attention in self.down:
            h = attention(block(h, embedding))
            skips.append(h)
        h = self.last(self.middle(self.first(h, embedding)), embedding)
        for block, attention in self.up:
            if block.resample is None:
                h = torch.cat([h, skips.pop()], 1)
            h = attention(block(h, embedding))
        return self.conv_out(F.silu(self.norm_out(h)))


def network_of(folder: str) -> tuple[dict, dict]:
    """The parameters of a lowered run's UNet, and what else lower.py tells of it."""
    try:
        with open(os.path.join(folder, "lowered.json")) as file:
            told = json.load(file)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {folder} holds no lowered run ({error}); lower.py writes one")
    takes = "channels channel_multipliers num_res_blocks attention_resolutions head_dim dropout"
    found = {}
    with open(os.path.join(folder, "config.gin")) as file:
        for line in file:
            name, _, value = line.strip().partition(" = ")
            if name.startswith("UNet.") and name[len("UNet.") :] in takes.split():
                found[name[len("UNet.") :]] = ast.literal_eval(value)
    return found, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="what lower.py wrote")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="a round")
    parser.add_argument("--seconds", type=float, default=90.0, help="begin no round after so many")
    parser.add_argument("--eager", action="store_true", help="no torch.compile")
    options = parser.parse_args()
    began = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    shape, told = network_of(options.folder)
    network = UNet(told["image_shape"], **shape).to(device, memory_format=torch.channels_last)
    parameters = list(network.parameters())
    averages = [p.detach().clone() for p in parameters]
    adam = torch.optim.Adam(parameters, 2e-4, fused=True)
    count, batch_size = sum(p.numel() for p in parameters), told["batch_size"]
    height, width, channels = told["image_shape"]
    images = torch.randint(0, 256, (10_000, channels, height, width), dtype=torch.uint8)
    images = images.to(device)

    def loss_of(x, noise, t):
        alpha = torch.cos(0.5 * math.pi * t)[:, None, None, None]
        sigma = torch.sin(0.5 * math.pi * t)[:, None, None, None]
        with torch.autocast(device, torch.bfloat16):
            prediction = network(alpha * x + sigma * noise, t)
        return (prediction.float() - noise).square().mean()

    compiled = loss_of if options.eager else torch.compile(loss_of)

    def step():
        rows = torch.randint(0, len(images), (batch_size,), device=device)
        x = images[rows].float() / 127.5 - 1.0
        x = x.contiguous(memory_format=torch.channels_last)
        flipped = torch.rand(batch_size, 1, 1, 1, device=device) < 0.5
        x = torch.where(flipped, x.flip(3), x)
        loss = compiled(x, torch.randn_like(x), torch.rand(batch_size, device=device))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1e-4)
        return loss.detach()

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    first = float(step())
    print(f"PyTorch {torch.__version__}, {device}: {count:,} parameters", flush=True)
    print(f"first step after {time.monotonic() - began:.1f} s, loss {first:.4f}", flush=True)
    rates = []
    for _ in range(options.rounds):
        if rates and time.monotonic() - began > options.seconds:
            break
        wait()
        start = time.monotonic()
        for _ in range(options.steps):
            step()
        wait()
        rates.append(options.steps * batch_size / (time.monotonic() - start))
    middle = sorted(rates)[len(rates) // 2]
    print(f"training: {middle:,.0f} images/s, median of {len(rates)} rounds", flush=True)


if __name__ == "__main__":
    main()
