"""This library's side of `peers.py`, which starts it: the CIFAR-10 UNet, trained or sampled."""

import json
import os
import sys

from taking_turns import take_turns

from bdm_tf.system.terminal import load_tensorflow

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHAPE = (32, 32, 3)


def build(case: dict):
    from bdm_tf import config
    from bdm_tf.model import build_model
    from bdm_tf.training.loop import train  # noqa: F401, whose parameters gin files name

    dtype = "float32" if case["dtype"] == "float32" else "mixed_bfloat16"
    given = {
        "UNet.channels": case["width"],
        "UNet.head_dim": 64,
        "UNet.dtype": dtype,
        "Model.image_shape": SHAPE,
    }
    parameters = [f"{name} = {value!r}" for name, value in given.items()]
    config.parse([os.path.join(ROOT, "gin", "cifar10.gin")], parameters)
    return build_model()


def training(model, case: dict):
    from steps_on_noise import steps_on_noise

    return steps_on_noise(model, case["batch"])


def sampling(model, case: dict):
    """Draws images by DDIM, with so many evaluations of the network."""
    import tensorflow as tf

    from bdm_tf.sampling import DDIMSampler

    shape = (case["batch"], *SHAPE)

    @tf.function(autograph=False)
    def draw(seed, num_steps):
        return DDIMSampler()(model.denoiser(), shape=shape, seed=seed, num_steps=num_steps)

    return lambda count: draw(tf.constant([0, 0]), tf.constant(count)).numpy()


def main() -> None:
    case = json.loads(sys.argv[1])
    load_tensorflow()  # as the commands do
    import tensorflow as tf

    if case["device"] == "cpu":
        tf.config.set_visible_devices([], "GPU")
    run = {"train": training, "sample": sampling}[case["task"]](build(case), case)
    take_turns(run, case["steps"], {"tensorflow": tf.__version__})


if __name__ == "__main__":
    main()
