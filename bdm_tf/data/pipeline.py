"""From uint8 images to training batches: scaling, flips, pieces for the replicas."""

from __future__ import annotations

import tensorflow as tf

from bdm_tf.data.images import Images

_FLIP = 0x666C6970  # sets the flips' random numbers apart from others made from the same seed


def to_unit_range(images: tf.Tensor) -> tf.Tensor:
    """uint8 in 0..255 to float32 in [-1, 1]."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """float32 in [-1, 1] to uint8, rounded; what lies outside is clipped."""
    return tf.cast(tf.clip_by_value(tf.round((images + 1.0) * 127.5), 0.0, 255.0), tf.uint8)


def training_dataset(
    images: Images,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    flip: bool,
    rows: tuple[int, int] | None = None,
    replica_batch_size: int | None = None,
    with_labels: bool = False,
) -> tf.data.Dataset:
    """Endless training batches, a pure function of (seed, step).

    Args:
        images: the training split.
        batch_size: images in a global batch.
        seed: an integer.
        first_step: the global batch to begin with.
        flip: mirror each image left to right with probability 1/2; the choice belongs to (seed,
            step, place in the global batch).
        rows: `(low, high)`, the rows of the global batch that this worker takes; default all.
        replica_batch_size: cut the rows into pieces of this many, one element each, in order.
        with_labels: also return the images' classes.

    Returns:
        Elements `{"image": float32 [b, H, W, C] in [-1, 1], "row": int32 []}`, where row is the
        place of the piece's first example in the global batch; with labels also `"label"`, int32
        `[b]`.
    """
    low, high = rows or (0, batch_size)
    size = replica_batch_size or high - low

    def prepare(step, batch):
        batch, labels = batch if with_labels else (batch, None)
        if flip:
            choice = tf.random.stateless_uniform(
                [batch_size], tf.stack([tf.constant(seed ^ _FLIP, tf.int64), step]), alg="philox"
            )
            mirrored = choice[low:high, None, None, None] < 0.5
            batch = tf.where(mirrored, tf.reverse(batch, [2]), batch)
        pieces = tf.reshape(to_unit_range(batch), [-1, size, *images.image_shape])
        prepared = {"image": pieces, "row": tf.range(low, high, size)}
        return prepared if labels is None else {**prepared, "label": tf.reshape(labels, [-1, size])}

    batches = images.train_batches(
        batch_size=batch_size,
        seed=seed,
        first_step=first_step,
        rows=rows,
        with_labels=with_labels,
    )
    dataset = batches.enumerate(start=first_step).map(prepare, num_parallel_calls=2)
    options = tf.data.Options()
    options.deterministic = True
    return dataset.unbatch().prefetch(tf.data.AUTOTUNE).with_options(options)
