"""Images at a fraction of their size: box averages of another source's."""

import numpy as np
import pytest

from bdm_tf.data import Downsampled, TFDSImages
from bdm_tf.system.errors import UserError


def averaged(images):
    """Means of 2x2 pixels in float64, halves rounded up."""
    pairs = np.float64(images).reshape(len(images), 4, 2, 4, 2, 1)
    return np.floor(pairs.mean((2, 4)) + 0.5).astype(np.uint8)


def test_each_image_is_the_mean_of_its_patches_in_the_same_order(digits_dir):
    source = TFDSImages("digits")
    smaller, held_out = Downsampled(source, 2).load(digits_dir)
    whole, _ = source.load(digits_dir)
    assert smaller.image_shape == Downsampled(source, 2).image_shape() == (4, 4, 1)
    assert smaller.num_images == whole.num_images and held_out.num_images == 359
    places = np.arange(0, whole.num_images, 7)
    np.testing.assert_array_equal(smaller.at(places), averaged(whole.at(places)))
    rows = np.concatenate(list(smaller.in_order(500)))
    np.testing.assert_array_equal(rows[places], averaged(whole.at(places)))
    given = dict(batch_size=9, seed=3, first_step=200, rows=(2, 8), with_labels=True)
    (found, labels), (images, expected) = (
        next(i.train_batches(**given).as_numpy_iterator()) for i in (smaller, whole)
    )
    np.testing.assert_array_equal(found, averaged(images))
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(smaller.labels(20), whole.labels(20))
    assert smaller.content_key() != whole.content_key()
    assert smaller.source_key() != whole.source_key()
    assert smaller.class_names == whole.class_names


def test_streamed_images_are_the_same(digits_dir):
    streamed, _ = Downsampled(TFDSImages("digits", max_memory_gb=0.0), 2).load(digits_dir)
    held, _ = Downsampled(TFDSImages("digits"), 2).load(digits_dir)
    np.testing.assert_array_equal(streamed.at(np.arange(30)), held.at(np.arange(30)))


def test_a_factor_that_does_not_divide_the_sides_is_refused(digits_dir):
    source = Downsampled(TFDSImages("digits"), 3)
    for use in (source.image_shape, lambda: source.load(digits_dir)):
        with pytest.raises(UserError, match="Downsampled.factor=3 must divide .* which are 8x8"):
            use()
    with pytest.raises(UserError, match="Downsampled.source = 'digits' is no data source"):
        Downsampled("digits")
