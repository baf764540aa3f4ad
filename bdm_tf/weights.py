"""Averaged weights from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from bdm_tf.system.checkpoint_files import BrokenCheckpoint
from bdm_tf.system.errors import TryAgain, UserError, first_line
from bdm_tf.system.keras_versions import raw_variables


def restore_average(model, checkpoint: str) -> None:
    """Gives a `Model` the averaged weights of a checkpoint.

    Raises:
        UserError: they are another network's.
        BrokenCheckpoint: it cannot be read.
        TryAgain: it was deleted.
    """
    weights = raw_variables(model.ema_network.trainable_variables)
    saved = tf.train.Checkpoint(ema_weights=weights)
    try:
        _check_shapes(weights, checkpoint)
        saved.restore(checkpoint).expect_partial().assert_existing_objects_matched()
    except UserError:
        raise
    except (tf.errors.OpError, LookupError, ValueError, AssertionError, OSError) as error:
        if not tf.io.gfile.exists(f"{checkpoint}.index"):
            raise TryAgain(
                f"{checkpoint} was deleted before it was read, as by training, which keeps the "
                "newest; the same command takes the newest of now"
            ) from error
        reason = first_line(error)
        raise BrokenCheckpoint(
            f"{checkpoint} cannot be read: {reason}; give another --step"
        ) from error


def _check_shapes(weights: Sequence[tf.Variable], checkpoint: str) -> None:
    """Raises a `UserError` for a checkpoint of another network; TensorFlow would say it of each."""
    # Not tf.train.load_checkpoint, which finds nothing in ram://.
    there = tf.compat.v1.train.NewCheckpointReader(checkpoint).get_variable_to_shape_map()
    for i, weight in enumerate(weights):
        shape = there.get(f"ema_weights/{i}/.ATTRIBUTES/VARIABLE_VALUE")
        if shape is not None and shape != list(weight.shape):
            raise UserError(
                f"{checkpoint} is of another network: its weight number {i} is {shape}, config.gin "
                f"makes it {list(weight.shape)}. Bring back the config.gin that the run was "
                "trained with"
            )
