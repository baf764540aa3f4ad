"""A function of arrays, spread over the replicas of a strategy, on all workers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bdm_tf.system.cluster import Cluster


def on_replicas(
    strategy: tf.distribute.Strategy, function: Callable, batch_size: int | None = None
) -> Callable:
    """`function`, compiled, with its arrays cut along the first axis, a piece for each replica.

    Args:
        strategy: where to run. With several workers, all must call it with the same arrays.
        function: of tensors, returns a structure of tensors whose first axis is that of its
            arguments.
        batch_size: shorter arrays are padded to this length by their last row, and what comes of
            that is cut off again, so that one graph of static shapes serves all.

    Returns:
        A function of arrays (first axis divisible by the number of replicas) that returns the
        structure with NumPy arrays, the replicas' parts joined in order. It raises `TryAgain`
        when another worker is gone.
    """
    replicas = strategy.num_replicas_in_sync
    cluster = Cluster(strategy)
    several_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    dtypes: list[tf.DType] = []  # of the results

    def piece(*arguments):
        results = function(*arguments)
        dtypes[:] = [result.dtype for result in tf.nest.flatten(results)]
        return tf.nest.map_structure(_gatherable, results) if several_workers else results

    @tf.function(autograph=False)
    def compiled(arguments):
        results = strategy.run(piece, args=arguments)
        if several_workers:
            return tf.nest.map_structure(lambda parts: strategy.gather(parts, axis=0), results)
        return results

    def joined(parts, dtype):
        if several_workers:
            return parts.numpy().astype(dtype.as_numpy_dtype)
        return np.concatenate([p.numpy() for p in strategy.experimental_local_results(parts)])

    def call(*arrays: np.ndarray):
        rows = len(arrays[0])
        missing = (batch_size or rows) - rows
        if missing:
            arrays = tuple(np.concatenate([a, a[-1:].repeat(missing, 0)]) for a in arrays)
        pieces = [np.split(np.asarray(array), replicas) for array in arrays]

        def piece_of(k):
            return lambda context: tf.constant(pieces[k][context.replica_id_in_sync_group])

        distribute = strategy.experimental_distribute_values_from_function
        with cluster.collective():
            arguments = tuple(distribute(piece_of(k)) for k in range(len(arrays)))
            parts = compiled(arguments)
            whole = [joined(part, dtype) for part, dtype in zip(tf.nest.flatten(parts), dtypes)]
        results = tf.nest.pack_sequence_as(parts, whole)
        return tf.nest.map_structure(lambda r: r[:rows], results) if missing else results

    return call


def _gatherable(result: tf.Tensor) -> tf.Tensor:
    return tf.cast(result, tf.int32) if result.dtype == tf.uint8 else result  # as collectives ask
