"""From uint8 images to training batches."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.data import InMemoryImages, to_uint8, to_unit_range, training_dataset

# Random images: none is its own mirror image.
ARRAY = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 2)).astype(np.uint8)
IMAGES = InMemoryImages(ARRAY)


def steps(count, images=IMAGES, *, batch_size=12, seed=0, first_step=0, flip=True, **cut):
    """Global batches float32 `[count, b, H, W, C]` and the pieces' rows `[count, pieces]`."""
    dataset = training_dataset(
        images, batch_size=batch_size, seed=seed, first_step=first_step, flip=flip, **cut
    )
    low, high = cut.get("rows") or (0, batch_size)
    pieces = (high - low) // (cut.get("replica_batch_size") or high - low)
    elements = list(dataset.take(count * pieces).as_numpy_iterator())
    batches = np.concatenate([element["image"] for element in elements])
    rows = np.stack([element["row"] for element in elements])
    return batches.reshape(count, high - low, *images.image_shape), rows.reshape(count, pieces)


def test_every_uint8_value_survives_the_way_to_unit_range_and_back():
    values = np.arange(256, dtype=np.uint8)
    unit = to_unit_range(values)
    assert unit.dtype == tf.float32
    np.testing.assert_allclose(unit, np.linspace(-1, 1, 256), atol=1e-6)
    np.testing.assert_array_equal(to_uint8(unit), values)


def test_to_uint8_rounds_to_the_nearest_value():
    values = np.arange(1, 255)
    for offset in (-0.4, 0.4):
        unit = ((values + offset) / 127.5 - 1).astype(np.float32)
        np.testing.assert_array_equal(to_uint8(unit), values)


def test_to_uint8_clips_what_lies_outside():
    outside = np.array([-1e9, -3, -1.01, 1.01, 3, 1e9], np.float32)
    np.testing.assert_array_equal(to_uint8(outside), [0, 0, 0, 255, 255, 255])


def test_black_is_minus_one_and_white_is_one():
    array = np.stack([np.zeros((2, 2, 1), np.uint8), np.full((2, 2, 1), 255, np.uint8)])
    batch, _ = steps(1, InMemoryImages(array), batch_size=2)
    np.testing.assert_array_equal(np.sort(batch[0, :, 0, 0, 0]), [-1.0, 1.0])


def test_without_flips_the_batches_are_the_images():
    batches, rows = steps(4, flip=False)
    expected = IMAGES.train_batches(batch_size=12, seed=0, first_step=0).take(4)
    np.testing.assert_array_equal(to_uint8(batches), np.stack(list(expected.as_numpy_iterator())))
    np.testing.assert_array_equal(rows, np.zeros((4, 1)))


def test_a_flip_mirrors_left_and_right_and_nothing_else():
    plain, flipped = steps(10, flip=False)[0], steps(10)[0]
    kept = (flipped == plain).all((2, 3, 4))
    mirrored = (flipped == plain[:, :, :, ::-1]).all((2, 3, 4))
    assert (kept ^ mirrored).all()
    assert kept.any() and mirrored.any()


def test_about_half_of_the_images_are_flipped_independently():
    """Each bound is 5 standard deviations of a fair coin."""
    arrow = InMemoryImages(np.array([[[[0], [255]]]], np.uint8))
    batches, _ = steps(20, arrow, batch_size=400)
    coin = (batches[:, :, 0, 0, 0] > 0).astype(float)
    assert abs(coin.mean() - 0.5) < 5 * 0.5 / np.sqrt(8_000)
    assert (np.abs(coin.mean(0) - 0.5) < 5 * 0.5 / np.sqrt(20)).all()
    assert (np.abs(coin.mean(1) - 0.5) < 5 * 0.5 / np.sqrt(400)).all()
    neighbours = (coin[1:] == coin[:-1]).mean()
    assert abs(neighbours - 0.5) < 5 * 0.5 / np.sqrt(7_600)


def test_another_seed_flips_others():
    arrow = InMemoryImages(np.array([[[[0], [255]]]], np.uint8))
    batches = [steps(3, arrow, seed=seed)[0].tobytes() for seed in range(4)]
    assert len(set(batches)) == 4


def test_a_resumed_run_sees_the_same_flips():
    whole, _ = steps(8, seed=5)
    np.testing.assert_array_equal(steps(5, seed=5, first_step=3)[0], whole[3:])


@pytest.mark.parametrize("size", [1, 3, 6, 12])
def test_pieces_for_replicas_put_together_are_the_batch(size):
    batches, rows = steps(4, replica_batch_size=size)
    np.testing.assert_array_equal(batches, steps(4)[0])
    np.testing.assert_array_equal(rows, np.tile(np.arange(0, 12, size), (4, 1)))


def test_a_worker_gets_its_rows_in_pieces_that_know_their_place():
    whole, _ = steps(4)
    part, rows = steps(4, rows=(4, 10), replica_batch_size=3)
    np.testing.assert_array_equal(part, whole[:, 4:10])
    np.testing.assert_array_equal(rows, np.tile([4, 7], (4, 1)))


def test_shapes_are_static():
    dataset = training_dataset(
        IMAGES, batch_size=12, seed=0, first_step=0, flip=True, replica_batch_size=3
    )
    assert dataset.element_spec == {
        "image": tf.TensorSpec((3, 3, 4, 2), tf.float32),
        "row": tf.TensorSpec((), tf.int32),
    }
