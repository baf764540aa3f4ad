"""The order of the images: a pure function of (seed, step), for every kind of storage."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.data import FileImages, InMemoryImages, RecordImages
from bdm_tf.data.images import permuted
from bdm_tf.system.errors import UserError

N, SHAPE = 10, (2, 3, 1)
ARRAY = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, *SHAPE)).copy()
FOREIGN = 99  # a record that the split does not hold


def write_shard(path, values):
    with tf.io.TFRecordWriter(path) as writer:
        for value in values:
            writer.write(bytes([value] * 6))
    return path


def record_images(folder):
    shards = [
        (write_shard(f"{folder}/a", [FOREIGN, 0, 1, 2]), 1, 3),
        (write_shard(f"{folder}/b", [3, 4, 5, FOREIGN]), 0, 3),
        (write_shard(f"{folder}/c", [FOREIGN, FOREIGN, 6, 7, 8, FOREIGN]), 2, 3),
        (write_shard(f"{folder}/d", [9]), 0, 1),
    ]

    def decode(record):
        return tf.reshape(tf.io.decode_raw(record, tf.uint8), SHAPE)

    return RecordImages(shards, N, SHAPE, decode)


@pytest.fixture(params=["memory", "files", "records"])
def images(request, tmp_path):
    if request.param == "memory":
        return InMemoryImages(ARRAY)
    if request.param == "files":
        names = [str(i) for i in range(N)]
        return FileImages(names, SHAPE, lambda name: ARRAY[int(name)], skip_corrupt=False)
    return record_images(tmp_path)


def drawn(images, count, *, batch_size=4, seed=0, first_step=0, rows=None):
    """Which images are in the next `count` batches, int `[count, rows]`."""
    dataset = images.train_batches(
        batch_size=batch_size, seed=seed, first_step=first_step, rows=rows
    )
    batches = np.stack(list(dataset.take(count).as_numpy_iterator()))
    assert (batches == batches[..., :1, :1, :1]).all()
    return batches[..., 0, 0, 0]


def test_every_epoch_holds_every_image_once_and_batches_straddle_epochs(images):
    epochs = drawn(images, 15).reshape(6, N)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(N), (6, 1)))


def test_no_two_epochs_are_in_the_same_order(images):
    assert len(np.unique(drawn(images, 15).reshape(6, N), axis=0)) == 6


def test_every_image_is_equally_likely_at_every_place(images):
    epochs = drawn(images, 10, batch_size=40 * N).reshape(400, N)
    counts = np.stack([np.bincount(places, minlength=N) for places in epochs.T])
    assert (np.abs(counts - 400 / N) < 5 * np.sqrt(400 * 0.1 * 0.9)).all()


@pytest.mark.parametrize("num_images", [1438, 50_000])
def test_the_orders_of_different_epochs_and_seeds_are_unrelated(num_images):
    """Correlations between permutations are N(0, 1 / num_images); the bound is 5 sigma."""
    positions = tf.range(4 * num_images, dtype=tf.int64)
    orders = [permuted(positions, num_images, seed).numpy() for seed in (0, 1)]
    orders = np.concatenate([np.arange(num_images), *orders]).reshape(9, num_images)
    between = np.corrcoef(orders) - np.eye(9)
    assert np.abs(between).max() < 5 / np.sqrt(num_images)


@pytest.mark.parametrize("first_step", [1, 2, 5, 12])
def test_a_resumed_run_sees_the_batches_it_would_have_seen(images, first_step):
    whole = drawn(images, 16, seed=3)
    np.testing.assert_array_equal(
        drawn(images, 16 - first_step, seed=3, first_step=first_step), whole[first_step:]
    )


def test_another_seed_is_another_order(images):
    orders = [drawn(images, 5, seed=seed).ravel() for seed in range(5)]
    assert len(np.unique(orders, axis=0)) == 5


def test_the_order_does_not_depend_on_the_global_seed(images):
    orders = []
    try:
        for global_seed in (0, 1):
            tf.random.set_seed(global_seed)
            orders.append(drawn(images, 5))
    finally:
        tf.random.set_seed(None)
    np.testing.assert_array_equal(*orders)


def test_the_rows_of_two_workers_are_the_global_batch(images):
    whole = drawn(images, 8, batch_size=6)
    low = drawn(images, 8, batch_size=6, rows=(0, 2))
    high = drawn(images, 8, batch_size=6, rows=(2, 6))
    np.testing.assert_array_equal(np.concatenate([low, high], 1), whole)


def test_a_resumed_worker_sees_its_own_rows(images):
    whole = drawn(images, 8, batch_size=6)
    part = drawn(images, 3, batch_size=6, rows=(2, 5), first_step=5)
    np.testing.assert_array_equal(part, whole[5:, 2:5])


def test_a_batch_may_be_larger_than_the_data_set(images):
    counts = np.bincount(drawn(images, 1, batch_size=3 * N)[0], minlength=N)
    np.testing.assert_array_equal(counts, np.full(N, 3))


def test_evaluation_images_are_the_first_ones_in_fixed_order(images):
    np.testing.assert_array_equal(images.eval_images(4), ARRAY[:4])
    np.testing.assert_array_equal(images.eval_images(N + 5), ARRAY)
    np.testing.assert_array_equal(images.at(np.array([0, 2, 3, 9])), ARRAY[[0, 2, 3, 9]])


def test_batches_have_a_static_shape(images):
    for rows, size in [(None, 4), ((1, 3), 2)]:
        dataset = images.train_batches(batch_size=4, seed=0, first_step=0, rows=rows)
        assert dataset.element_spec == tf.TensorSpec((size, *SHAPE), tf.uint8)


def test_one_image_alone_makes_a_data_set():
    images = InMemoryImages(ARRAY[7:8])
    assert images.num_images == 1
    np.testing.assert_array_equal(drawn(images, 2, batch_size=3), np.full((2, 3), 7))


def test_records_keep_the_order_of_their_files(tmp_path):
    in_order = np.concatenate(list(record_images(tmp_path).in_order(4)))
    np.testing.assert_array_equal(in_order, ARRAY)


def test_the_shards_too_are_shuffled(tmp_path, monkeypatch):
    """What a buffer smaller than the data set could not do alone."""
    monkeypatch.setattr("bdm_tf.data.records.SHUFFLE_BUFFER", 1)
    images = record_images(tmp_path)
    orders = [drawn(images, 3, batch_size=N, seed=seed) for seed in range(3)]
    assert len(np.unique(np.concatenate(orders), axis=0)) > 1
    for epochs in orders:
        assert len(np.unique(epochs, axis=0)) > 1
        np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(N), (3, 1)))


@pytest.mark.parametrize(
    "array", [np.zeros([2, 4, 4, 1]), np.zeros([0, 4, 4, 1], np.uint8), np.zeros([4, 4], np.uint8)]
)
def test_what_are_no_images_is_refused(array):
    with pytest.raises(UserError, match="must be uint8 .N, H, W, C."):
        InMemoryImages(array)
