"""How many images a second the input pipeline alone gives: decoded, mirrored, scaled, in batches.

python benchmarks/input_speed.py --side=32 --side=128

The images are made up: smooth, with some noise, so that they compress as photographs do. They are
held in memory; or read from records, PNG of the side that training sees, or JPEG of twice that
side, which are resized, as LSUN's are.
"""

import os
import statistics
import tempfile
import time

import numpy as np
from absl import app, flags

from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.terminal import load_tensorflow

_SIDES = flags.DEFINE_multi_integer("side", [32, 128], "Height and width in training.", 8)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a batch.", 1)
_BATCHES = flags.DEFINE_integer("batches", 20, "Batches whose time is measured at once.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements whose median counts.", 1)
_COUNT = 1000  # different images


def photographs(side: int) -> np.ndarray:
    """uint8 `[_COUNT, side, side, 3]`."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    rough = np.float32(random.uniform(0, 255, (_COUNT, 8, 8, 3)))
    smooth = tf.image.resize(rough, (side, side), "bicubic").numpy()
    return np.uint8(np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255))


def from_records(folder: str, kind: str, side: int, stored_side: int):
    """A split whose images are read from a file of records."""
    import tensorflow as tf

    from bdm_tf.data.records import RecordImages
    from bdm_tf.data.resize import fit_tensor

    encode = {"png": tf.io.encode_png, "jpeg": tf.io.encode_jpeg}[kind]
    path = os.path.join(folder, f"{kind}_{stored_side}.tfrecord")
    with tf.io.TFRecordWriter(path) as file:
        for image in photographs(stored_side):
            file.write(encode(image).numpy())

    def decode(record):
        image = tf.io.decode_image(record, channels=3, expand_animations=False)
        image = tf.ensure_shape(image, (stored_side, stored_side, 3))
        return fit_tensor(image, (side, side), 3)

    return RecordImages([(path, 0, _COUNT)], _COUNT, (side, side, 3), decode)


def images_a_second(images) -> float:
    from bdm_tf.data.pipeline import training_dataset

    size, batches = _BATCH_SIZE.value, _BATCHES.value
    found = iter(training_dataset(images, batch_size=size, seed=0, first_step=0, flip=True))
    for _ in range(batches):  # until the buffers are full
        next(found)
    times = []
    for _ in range(_ROUNDS.value):
        began = time.perf_counter()
        for _ in range(batches):
            next(found)
        times.append(time.perf_counter() - began)
    return size * batches / statistics.median(times)


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --side=32")
    load_tensorflow()
    from bdm_tf.data.images import InMemoryImages

    print("| images/s | held in memory | PNG records | JPEG records of twice the side, resized |")
    print("|---|---|---|---|")
    for side in _SIDES.value:
        with tempfile.TemporaryDirectory() as folder:
            sources = (
                InMemoryImages(photographs(side)),
                from_records(folder, "png", side, side),
                from_records(folder, "jpeg", side, 2 * side),
            )
            rates = [f"{images_a_second(images):,.0f}" for images in sources]
        print(f"| {side}×{side} | {' | '.join(rates)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
