"""Where a training step's time goes, by kind of operation, beside what convolutions must take.

python benchmarks/breakdown.py --gin_file=gin/cifar10.gin --gin_param="UNet.channels = 128" \
  --gin_param="UNet.head_dim = 64" --batch_size=8

Takes steps on random images, records one of them with TensorFlow's profiler, and measures in the
same run how fast this machine multiplies a large matrix: convolutions and products of the network,
by their definition three times the forward pass, cannot take less time than at that speed. What
the diffusion itself takes is the time of a step whose network is a single weight.
"""

import collections
import copy
import glob
import os
import statistics
import tempfile
import time

import keras
import tensorflow as tf
from absl import app, flags
from steps_on_noise import steps_on_noise

from bdm_tf import config, exporting  # noqa: F401, exporting for gin
from bdm_tf.model import build_model
from bdm_tf.stablehlo.steps import use_stand_in_spectrum
from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.tpu_check.cost import forward_flops
from bdm_tf.training.loop import train  # noqa: F401, whose parameters gin files name

_GIN_FILE = flags.DEFINE_multi_string("gin_file", None, "An experiment.", required=True)
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "Its parameters.")
_SIDE = flags.DEFINE_integer("side", 32, "Height and width of the images.", 1)
_CHANNELS = flags.DEFINE_integer("image_channels", 3, "Colour channels.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images a step.", 1)
_STEPS = flags.DEFINE_integer("steps", 5, "Steps whose median counts.", 1)
_ROWS = flags.DEFINE_integer("rows", 20, "Kinds of operations to list.", 1)
_LARGE = 2048  # rows and columns of the matrix


def seconds_by_kind(run) -> tuple[collections.Counter, collections.Counter]:
    """Seconds of each kind of operation in a step, summed over threads, and how many there are."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # no public name has it

    seconds, count = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run(1)
        (path,) = glob.glob(os.path.join(folder, "**", "*.xplane.pb"), recursive=True)
        with open(path, "rb") as file:
            space = xplane_pb2.XSpace.FromString(file.read())
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                _, is_operation, kind = plane.event_metadata[event.metadata_id].name.partition(":")
                if is_operation and kind.isidentifier():
                    seconds[kind] += event.duration_ps / 1e12
                    count[kind] += 1
    return seconds, count


class OneWeight(keras.layers.Layer):
    """A network in name alone, whose step is times, noise, changes of basis and the loss."""

    def __init__(self, num_classes: int | None):
        super().__init__()
        self.num_classes = num_classes
        self._weight = self.add_weight(shape=(), initializer="ones")
        self.built = True

    def call(self, z_t, t, dropout_seed=None, label=None):
        return self._weight * z_t


def without_network(model):
    """The same model but for its networks."""
    bare, classes = copy.copy(model), getattr(model.network, "num_classes", None)
    bare.network, bare.ema_network = OneWeight(classes), OneWeight(classes)
    return bare


def seconds_of_step(run) -> float:
    times = []
    for _ in range(_STEPS.value):
        began = time.perf_counter()
        run(1)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def flops_of_products(dtype: str) -> float:
    """Floating-point operations a second of the product of two large matrices."""
    a = tf.cast(tf.random.stateless_normal([_LARGE, _LARGE], [0, 0]), dtype)

    @tf.function
    def product(a):
        return tf.matmul(a, a)

    product(a)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        product(a).numpy()
        times.append(time.perf_counter() - began)
    return 2 * _LARGE**3 / statistics.median(times)


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --batch_size=8")
    config.parse(_GIN_FILE.value, _GIN_PARAM.value)
    shape = (_SIDE.value, _SIDE.value, _CHANNELS.value)
    config.bind("Model.image_shape", shape)
    model = build_model()
    use_stand_in_spectrum(model)
    run = steps_on_noise(model, _BATCH_SIZE.value)
    began = time.perf_counter()
    run(1)
    print(f"first step after {time.perf_counter() - began:.1f} s")
    run(1)
    step = seconds_of_step(run)
    bare = steps_on_noise(without_network(model), _BATCH_SIZE.value)
    bare(2)
    mathematics = seconds_of_step(bare)
    is_bfloat16 = "mixed_bfloat16" in config.parameters(config.operative_text())["UNet.dtype"]
    speed = flops_of_products("bfloat16" if is_bfloat16 else "float32")
    flops = 3 * _BATCH_SIZE.value * forward_flops(model.network, shape)
    least = flops / speed
    print(
        f"step {1e3 * step:.0f} ms, {_BATCH_SIZE.value / step:.2f} images/s; its {flops / 1e9:.1f} "
        f"GFLOP of convolutions and products take {1e3 * least:.0f} ms at the {speed / 1e9:.0f} "
        f"GFLOP/s of a large product: {least / step:.0%}"
    )
    print(f"its mathematics of diffusion: {1e3 * mathematics:.2f} ms, {mathematics / step:.2%}")
    seconds, count = seconds_by_kind(run)
    print("\n| operation | ms, over all threads | number |\n|---|---|---|")
    for kind, spent in seconds.most_common(_ROWS.value):
        print(f"| {kind} | {1e3 * spent:.1f} | {count[kind]} |")


if __name__ == "__main__":
    app.run(main)
