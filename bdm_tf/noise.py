"""Random numbers that belong to an image and a step, whatever batch the image is drawn in.

They are those of `tf.random.stateless_uniform` and `stateless_normal` without XLA. XLA has the same
bits but makes other numbers of them; here they are made of the bits in the open, so that they are
the same, to rounding, with and without XLA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

# Draws of the prior: noise, which component, and within it; of the class. Steps count from 1, and
# where they are repeated, what diffuses z_s again counts downwards.
PRIOR, COMPONENT, WITHIN, LABEL, AGAIN = 0, -1, -2, -3, -4
_BLOCK = 4  # numbers that Philox makes of one value of its counter
_SCRAMBLE = 0x02461E293EC8F720  # the key with which TensorFlow makes a key of a seed
# Sines are rounded another way where a vector register is not full: numbers come in multiples.
_MULTIPLE = 32


def image_seeds(seed: tf.Tensor, first, count: int) -> tf.Tensor:
    """A seed for each of the images `first ... first + count - 1`: int32 `[count, 2]`."""
    return seeds_of(seed, tf.cast(first, tf.int32) + tf.range(count))


def seeds_of(seed: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """A seed for each of the images of these numbers, int32 `[count]`: int32 `[count, 2]`."""
    return tf.map_fn(lambda i: fold_in(seed, i), numbers, fn_output_signature=tf.int32)


def between(a: tf.Tensor, b: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Spherical interpolation of noise (Shoemake, 1985): a where weight is 0, b where it is 1.

    `(sin((1 - w) omega) a + sin(w omega) b) / sin(omega)`, omega the angle between a and b.

    Args:
        a, b: coefficients of white noise, `[count, H, W, C]`, or in an orthonormal basis its
            pixels, whose angles are the same.
        weight: `[count]` in [0, 1].
    """

    def product(left, right):
        return tf.reduce_sum(left * right, axis=[1, 2, 3], keepdims=True)

    cosine = product(a, b) / tf.sqrt(product(a, a) * product(b, b))
    omega, share = tf.acos(tf.clip_by_value(cosine, -1.0, 1.0)), weight[:, None, None, None]
    parts = [tf.math.divide_no_nan(tf.sin(w * omega), tf.sin(omega)) for w in (1.0 - share, share)]
    # The same noise twice has no angle.
    return tf.where(cosine < 1.0, parts[0] * a + parts[1] * b, a)


def normal(seeds: tf.Tensor, step, image_shape: Sequence[int]) -> tf.Tensor:
    """Standard normal noise `[count, *image_shape]`, each image from its own seed and `step`."""
    size = math.prod(image_shape)
    pairs = -(-size // _MULTIPLE) * _MULTIPLE // 2
    bits = tf.map_fn(
        lambda seed: _bits([pairs, 2], *_key_counter(seed)),
        # Not the second word: that is the image's number, and steps would run into other images.
        seeds + tf.stack([tf.cast(step, tf.int32), 0]),
        fn_output_signature=tf.uint32,
    )
    drawn = tf.reshape(_normal(bits), [-1, 2 * pairs])
    return tf.reshape(drawn[:, :size], [-1, *image_shape])


def normal_rows(seed: tf.Tensor, first: int | tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Rows `first ... first + shape[0] - 1` of a batch's standard normal noise, and no others.

    A row is the same, to the bit, whatever rows it is drawn with: Philox is a function of a
    counter, which here begins where the rows do. They are the rows of
    `tf.random.stateless_normal([batch_size, *shape[1:]], seed)`.

    Args:
        seed: int32 `[2]`.
        first: a scalar integer.
        shape: `(rows, ...)`, static.

    Returns:
        float32 of `shape`.
    """
    row = math.prod(shape[1:])
    start = tf.cast(first, tf.int64) * row
    key, counter = _key_counter(seed)
    blocks = tf.cast(start // _BLOCK, tf.uint64)
    most = shape[0] * row + (_BLOCK - 1 if row % _BLOCK else 0)  # rows may begin within a block
    count = -(-most // _MULTIPLE) * _MULTIPLE
    bits = _bits([count // 2, 2], key, counter + tf.stack([blocks, tf.zeros_like(blocks)]))
    drawn = tf.reshape(_normal(bits), [count])
    drawn = tf.slice(drawn, [tf.cast(start % _BLOCK, tf.int32)], [shape[0] * row])
    return tf.reshape(drawn, shape)


def uniform(seed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Numbers of [0, 1), float32 of `shape`, from a seed int32 `[2]`."""
    return _unit(_bits(shape, *_key_counter(seed)))


def choices(seeds: tf.Tensor, weights: tf.Tensor, purpose: int = COMPONENT) -> tf.Tensor:
    """An index int32 `[count]` for each image, drawn in proportion to `weights` `[n]`."""
    places = tf.map_fn(
        lambda seed: uniform(seed, []),
        seeds + tf.constant([purpose, 0]),
        fn_output_signature=tf.float32,
    )
    # In float64: the sum of 50,000 weights would not end at 1 in float32.
    edges = tf.cumsum(tf.cast(weights, tf.float64))
    found = tf.searchsorted(edges, tf.cast(places, tf.float64) * edges[-1], side="right")
    return tf.minimum(found, tf.shape(weights)[0] - 1)


def fold_in(seed: tf.Tensor, data) -> tf.Tensor:
    """A new seed int32 `[2]` from `seed` and an integer."""
    drawn = tf.bitcast(_bits([], *_key_counter(seed)), tf.int32)
    return tf.stack([drawn, tf.cast(data, tf.int32)])


def _key_counter(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What `StatelessRandomGetKeyCounter` makes of a seed, whose sign XLA's loses."""
    words = _bits(
        [2],
        tf.constant([_SCRAMBLE], tf.uint64),
        tf.cast(tf.cast(seed, tf.int64), tf.uint64),
        tf.uint64,
    )
    return words[:1], tf.stack([tf.zeros([], tf.uint64), words[1]])


def _bits(shape: Sequence[int], key: tf.Tensor, counter: tf.Tensor, dtype=tf.uint32) -> tf.Tensor:
    """Philox's bits."""
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.constant(shape, tf.int32),
        key=key,
        counter=counter,
        alg=tf.random.Algorithm.PHILOX.value,
        dtype=dtype,
    )


def _unit(bits: tf.Tensor) -> tf.Tensor:
    """The lower 23 bits as a number of [0, 1)."""
    return tf.cast(bits & tf.constant(2**23 - 1, tf.uint32), tf.float32) * 2.0**-23


def _normal(bits: tf.Tensor) -> tf.Tensor:
    """Two standard normal numbers of each two words of bits `[..., 2]` (Box and Muller, 1958)."""
    first, second = tf.unstack(_unit(bits), axis=-1)
    radius = tf.sqrt(-2.0 * tf.math.log(tf.maximum(first, 1e-7)))
    angle = 2.0 * math.pi * second
    return tf.stack([radius * tf.sin(angle), radius * tf.cos(angle)], axis=-1)
