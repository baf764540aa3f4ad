"""The SavedModel: sampling for someone who has only TensorFlow."""

from __future__ import annotations

import copy
import functools

import tensorflow as tf

from bdm_tf.classes import ANY_CLASS, given_checks, label_checks, labels_spec, listed
from bdm_tf.data.pipeline import to_uint8
from bdm_tf.model import Model
from bdm_tf.restoration.functions import restoring_functions, why_not
from bdm_tf.sample_settings import SampleSettings
from bdm_tf.sampling.arguments import draw_checks
from bdm_tf.system.keras_versions import raw_variables
from bdm_tf.trajectories import trajectory_function

_FAR = 2.0  # an image in [-1, 1] does not go so far, whatever resized it


class ExportedModel(tf.Module):
    """What is saved: `sample`, `trajectory`, `predict`, `diffuse`, and, if it can, what restores.

    Args:
        model: the trained model; its averaged weights are exported.
        settings: sampler and number of steps.
        chunk_size: images drawn at a time. Chunks are aligned and always full, so that an image
            is the same to the bit whatever else is asked for with it.
    """

    def __init__(self, model: Model, settings: SampleSettings, chunk_size: int):
        super().__init__()
        # Only the variables are tracked: Keras 3 layers with several inputs cannot be saved.
        self.weights = raw_variables(model.ema_network.trainable_variables)
        self.prior = dict(model.prior.variables)
        model = copy.copy(model)
        model.ema_network = _Shared(model.ema_network)
        shape = model.image_shape
        chunk_shape = (chunk_size, *shape)
        # Not attributes: tf.Module would track the Keras layers inside.
        process, classes = model.process, model.classes

        def draw_all(seed, num_images, num_steps, first, label=None, guidance=None):
            checks = [
                *draw_checks(seed, num_steps, first, num_images),
                *(label_checks(classes, label, guidance, num_images) if classes else ()),
            ]
            with tf.control_dependencies(checks):
                steps = tf.where(num_steps == 0, settings.num_steps, num_steps)
                first_chunk = first // chunk_size
            count = (first + num_images - 1) // chunk_size - first_chunk + 1

            def draw(i, drawn):
                start = (first_chunk + i) * chunk_size
                given = {"seed": seed, "first": start, "count": chunk_size, "num_steps": steps}
                if classes:  # images before the first and after the last are drawn, too
                    places = tf.clip_by_value(start + tf.range(chunk_size) - first, 0, num_images)
                    labels = tf.gather(label, tf.minimum(places, tf.shape(label)[0] - 1))
                    given |= {"label": labels, "guidance": guidance}
                return i + 1, drawn.write(i, to_uint8(settings.draw(model, **given)))

            drawn = tf.TensorArray(tf.uint8, size=count, element_shape=chunk_shape)
            _, drawn = tf.while_loop(
                lambda i, _: i < count, draw, [0, drawn], parallel_iterations=1
            )
            images = tf.reshape(drawn.stack(), [-1, *shape])
            offset = first - first_chunk * chunk_size
            return images[offset : offset + num_images]

        zero = tf.constant(0)  # Python's defaults would not be saved
        any_class, own_guidance = tf.constant([ANY_CLASS]), tf.constant(settings.guidance)

        def sample(seed, num_images, num_steps=zero, first=zero):
            return draw_all(seed, num_images, num_steps, first)

        def sample_of_class(
            seed, num_images, num_steps=zero, first=zero, label=any_class, guidance=own_guidance
        ):
            return draw_all(seed, num_images, num_steps, first, listed(label), guidance)

        def spec(name, dtype, *dimensions):
            return tf.TensorSpec(dimensions, dtype, name=name)

        batch = (None, *shape)
        counts = [spec(name, tf.int32) for name in ("num_images", "num_steps", "first")]
        of_class = [labels_spec()] if classes else []
        guided = [*of_class, spec("guidance", tf.float32)] if classes else []
        self.sample = tf.function(
            sample_of_class if classes else sample,
            input_signature=[spec("seed", tf.int32, 2), *counts, *guided],
            autograph=False,
        )

        def predict(z_t, t):
            with tf.control_dependencies(_time_checks(t, z_t=z_t)):
                return model.ema_network(tf.identity(z_t), tf.identity(t))

        def predict_of_class(z_t, t, label=any_class):
            count = tf.shape(z_t)[0]
            # One more than there are classes stands for none, too.
            label = tf.where(listed(label) == len(classes), ANY_CLASS, listed(label))
            checks = label_checks(classes, label, tf.constant(1.0), count)
            checks += given_checks(classes, label) + _time_checks(t, z_t=z_t)
            with tf.control_dependencies(checks):
                given = tf.gather(label, tf.minimum(tf.range(count), tf.size(label) - 1))
            return model.ema_network(z_t, t, label=tf.where(given < 0, len(classes), given))

        def diffuse(x, t, eps):
            too_large = "x must lie in [-1, 1]: uint8 images are divided by 127.5, less 1"
            checks = [tf.debugging.assert_less(tf.abs(x), _FAR, too_large)]
            with tf.control_dependencies([*checks, *_time_checks(t, x=x, eps=eps)]):
                return process.diffuse(tf.identity(x), tf.identity(t), eps)

        self.predict = tf.function(
            predict_of_class if classes else predict,
            input_signature=[
                spec("z_t", tf.float32, *batch),
                spec("t", tf.float32, None),
                *of_class,
            ],
            autograph=False,
        )
        self.diffuse = tf.function(
            diffuse,
            input_signature=[
                spec("x", tf.float32, *batch),
                spec("t", tf.float32, None),
                spec("eps", tf.float32, *batch),
            ],
            autograph=False,
        )

        self.trajectory = trajectory_function(model, settings, chunk_size)
        if not why_not(model.denoiser(), settings.sampler):
            restoring = restoring_functions(
                model.denoiser,
                settings.sampler,
                settings.projection,
                num_steps=settings.num_steps,
                chunk_size=chunk_size,
                classes=classes,
                guidance=settings.guidance,
                guidance_interval=settings.guidance_interval,
            )
            for name, function in restoring.items():  # vary, restore, inpaint
                setattr(self, name, function)

    def signatures(self) -> dict:
        """The named signatures, each with a dictionary as its result."""

        def named(function, result):
            @functools.wraps(function.python_function)  # and so its defaults
            def with_name(*args):
                return {result: function(*args)}

            signature = function.input_signature
            return tf.function(with_name, input_signature=signature, autograph=False)

        return {
            "serving_default": named(self.sample, "images"),
            "predict": named(self.predict, "prediction"),
            "diffuse": named(self.diffuse, "z_t"),
        }


class _Shared:
    """A network whose graph is written once for all functions that call it."""

    def __init__(self, network):
        self.num_classes = getattr(network, "num_classes", None)
        self._call = tf.function(lambda *given, **label: network(*given, **label), autograph=False)

    def __call__(self, z_t, t, **label):
        return self._call(z_t, t, **label)


def _time_checks(t: tf.Tensor, **arrays: tf.Tensor) -> list:
    """What fails, when the graph runs, for times that do not go with arrays of a batch."""
    checks = [
        tf.debugging.assert_non_negative(t, "t must lie in [0, 1]"),
        tf.debugging.assert_less_equal(t, 1.0, "t must lie in [0, 1]"),
    ]
    for name, array in arrays.items():
        message = f"{name} and t must have as many entries as each other"
        checks.append(tf.debugging.assert_equal(tf.shape(array)[0], tf.shape(t)[0], message))
    return checks
