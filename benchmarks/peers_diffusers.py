"""diffusers' side of `peers.py`, which starts it: a `UNet2DModel` of the shape of cifar10.gin's.

Training is denoising diffusion in eps with clipping, fused Adam and averaged weights; sampling are
evaluations without gradients. What of ours it leaves out (the change of basis, a sigma for each
frequency, the sampler's own arithmetic) only makes it faster.
"""

import contextlib
import json
import sys

import diffusers
import torch
import torch.nn.functional as F
from taking_turns import take_turns


def build(case: dict, device: str):
    width = case["width"]
    torch.set_float32_matmul_precision("high")
    return diffusers.UNet2DModel(
        sample_size=32,
        block_out_channels=(width, width, width),
        layers_per_block=3,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=64,
        dropout=0.2,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=32,
        downsample_type="resnet",
        upsample_type="resnet",
    ).to(device, memory_format=torch.channels_last)


def training(network, forward, autocast, x):
    parameters = list(network.parameters())
    averages = [p.detach().clone() for p in parameters]
    adam = torch.optim.Adam(parameters, 2e-4, fused=True)

    def step():
        t = torch.rand(len(x), device=x.device)
        noise, angle = torch.randn_like(x), 0.5 * torch.pi * t[:, None, None, None]
        z_t = torch.cos(angle) * x + torch.sin(angle) * noise
        with autocast:
            predicted = forward(z_t, 1000 * t).sample
        loss = F.mse_loss(predicted.float(), noise)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1e-4)
        return loss

    return step


def sampling(network, forward, autocast, x):
    network.eval()

    def evaluate():
        with torch.no_grad(), autocast:
            return forward(x, 1000 * torch.rand(len(x), device=x.device)).sample

    return evaluate


def main() -> None:
    case = json.loads(sys.argv[1])
    device = "cuda" if case["device"] == "gpu" else "cpu"
    network = build(case, device)
    forward = torch.compile(network) if case["compiled"] else network
    autocast = contextlib.nullcontext()
    if case["dtype"] == "bfloat16":
        autocast = torch.autocast(device, torch.bfloat16)
    x = 2 * torch.rand(case["batch"], 3, 32, 32, device=device) - 1
    x = x.contiguous(memory_format=torch.channels_last)
    make = {"train": training, "sample": sampling}[case["task"]]
    step = make(network, forward, autocast, x)

    def run(count):
        for _ in range(count):
            result = step()
        return result.detach().cpu()  # which waits for it

    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    take_turns(run, case["steps"], versions)


if __name__ == "__main__":
    main()
