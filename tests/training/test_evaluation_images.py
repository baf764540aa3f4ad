"""Which images the evaluation loss is measured on."""

from types import SimpleNamespace

import numpy as np

from bdm_tf.classes import Classes
from bdm_tf.data import InMemoryImages
from bdm_tf.training.loop import _evaluation_images


def test_of_images_sorted_by_class_some_of_each_are_taken_with_their_labels():
    labels = np.repeat([0, 1, 2], [2, 5, 3])
    array = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (10, 2, 2, 1))
    held_out = InMemoryImages(array, class_names=["a", "b", "c"], labels=lambda: labels)
    settings = SimpleNamespace(eval_every=1, eval_images=5)
    classes = Classes(("b", "a", "c"), (1, 1, 1), 0.1)
    images, found = _evaluation_images(settings, held_out, classes, replicas=1)
    np.testing.assert_array_equal(np.rint((images[:, 0, 0, 0] + 1) * 127.5), [0, 1, 1, 1, 2])
    np.testing.assert_array_equal(found, [1, 0, 0, 0, 2])
