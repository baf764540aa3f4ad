"""A small classifier of a data set's own classes, to score samples by.

python benchmarks/classifier.py --gin_file=gin/cifar10_labels.gin --data_dir=DIR --output=classes
python launch/evaluate.py --workdir=runs/cifar10_labels --gin_file=gin/eval/cifar10.gin \
    --features=classes

trains a convolutional network on the training split for a few minutes, says how often it is right
about the evaluation split, and writes a SavedModel of its last hidden layer, `features`, and its
`logits`. It has seen no sample of any diffusion model.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from keras import layers

from bdm_tf import config, exporting  # noqa: F401, exporting for gin
from bdm_tf.data.labels import labels_among
from bdm_tf.data.pipeline import to_unit_range
from bdm_tf.stablehlo.steps import setting
from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.keras_versions import raw_variables
from bdm_tf.system.paths import define_path
from bdm_tf.training import loop  # noqa: F401, for gin

_GIN_FILE = flags.DEFINE_multi_string("gin_file", None, "Has train.data.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "On top.")
_DATA_DIR = define_path("data_dir", None, "TFDS's folder, or a folder of images.")
_OUTPUT = define_path("output", None, "The SavedModel's folder.")
_EPOCHS = flags.DEFINE_integer("epochs", 8, "Passes over the images; a small set needs more.", 1)


def build(image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Three levels of two convolutions each, for float images in [-1, 1]."""
    images = keras.Input(image_shape)
    x = images
    for channels in (32, 64, 128):
        for stride in (1, 2):
            x = layers.Conv2D(channels, 3, stride, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization()(x)
            x = layers.Activation("relu")(x)
    features = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(num_classes)(layers.Dropout(0.3)(features))
    return keras.Model(images, [features, logits])


class Classifier(tf.Module):
    """What is saved."""

    def __init__(self, network: keras.Model):
        super().__init__()
        self.weights = raw_variables(network.variables)

        def serve(images):
            features, logits = network(to_unit_range(images), training=False)
            return {"features": features, "logits": logits}

        spec = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8, name="images")
        self.serve = tf.function(serve, input_signature=[spec], autograph=False)


def fit(network: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Trains on uint8 `[N, H, W, C]` and classes `[N]`; mirrored at random if `train.flip`."""

    def prepared(image, label):
        x = to_unit_range(image)
        return tf.image.random_flip_left_right(x) if setting("flip") else x, label

    batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images))
    batches = batches.map(prepared).batch(128, drop_remainder=True).prefetch(2)
    of_logits = keras.Model(network.input, network.outputs[1])
    of_logits.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    of_logits.fit(batches, epochs=_EPOCHS.value, verbose=2)


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1 or not _GIN_FILE.value or not _OUTPUT.value:
        raise UserError("usage: classifier.py --gin_file=FILE --output=FOLDER [--data_dir=DIR]")
    if tf.io.gfile.exists(_OUTPUT.value):
        raise UserError(f"--output={_OUTPUT.value} exists; give another folder")
    config.parse(_GIN_FILE.value, _GIN_PARAM.value)
    train, held_out = setting("data").load(_DATA_DIR.value)
    labels = labels_among(train, train.class_names)
    keras.utils.set_random_seed(0)
    network = build(train.image_shape, len(train.class_names))
    fit(network, train.eval_images(train.num_images), labels)
    classifier = Classifier(network)
    if held_out:
        found = [classifier.serve(batch)["logits"] for batch in held_out.in_order(500)]
        right = np.argmax(np.concatenate(found), -1) == labels_among(held_out, train.class_names)
        print(f"right about {right.mean():.4f} of {len(right)} images of the evaluation split")
    tf.saved_model.save(classifier, _OUTPUT.value, classifier.serve)
    print(f"wrote {_OUTPUT.value}")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
