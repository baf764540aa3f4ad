"""All that a run must remember: weights, their average, the optimizer, the step, open metrics."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bdm_tf.system import keras_versions
from bdm_tf.system.errors import UserError
from bdm_tf.system.keras_versions import raw_variables

TIME_BINS = 10  # of the loss over t, equal parts of [0, 1]
STEP_RECORD = 2 + 2 * TIME_BINS  # loss, gradient norm, loss sum and count of each bin


class TrainState:
    """The variables of a run; create it inside the strategy's scope.

    Args:
        network: the Keras network being trained.
        ema_network: its twin, whose weights are the moving average.
        optimizer: a Keras optimizer.
    """

    def __init__(self, network, ema_network, optimizer):
        keras_versions.build(optimizer, network.trainable_variables)
        self.network, self.ema_network, self.optimizer = network, ema_network, optimizer
        self.weights = raw_variables(network.trainable_variables)
        self.ema_weights = raw_variables(ema_network.trainable_variables)
        for ema, weight in zip(self.ema_weights, self.weights):
            ema.assign(weight)
        self.step = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            name="step",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.window = Window()

    def initialise(self, checkpoint: str) -> None:
        """Takes the averaged weights of another run's checkpoint, as weights and as average.

        Raises:
            UserError: they are another network's, or cannot be read.
        """
        try:
            reader = tf.train.load_checkpoint(checkpoint)
            for i, (weight, average) in enumerate(zip(self.weights, self.ema_weights)):
                value = reader.get_tensor(f"ema_weights/{i}/.ATTRIBUTES/VARIABLE_VALUE")
                if value.shape != tuple(weight.shape):
                    raise UserError(
                        f"--init_from={checkpoint} is of another network: its weight number {i} "
                        f"is {list(value.shape)}, {weight.name} is {list(weight.shape)}"
                    )
                weight.assign(value)
                average.assign(value)
            keras_versions.start_from(self.optimizer, self.weights)
            shapes = reader.get_variable_to_shape_map()
        except (tf.errors.OpError, LookupError, OSError) as error:
            reason = str(error).splitlines()[0][:300]
            raise UserError(f"--init_from={checkpoint} cannot be used: {reason}") from error
        there = sum(name.startswith("ema_weights/") for name in shapes)
        if there != len(self.weights):
            raise UserError(
                f"--init_from={checkpoint} is of another network: it has {there} weights, this "
                f"one {len(self.weights)}"
            )

    def checkpoint(self) -> tf.train.Checkpoint:
        """A checkpoint of everything; lists, so that it does not depend on Keras's names."""
        return tf.train.Checkpoint(
            step=self.step,
            weights=self.weights,
            ema_weights=self.ema_weights,
            optimizer=keras_versions.state_of(self.optimizer),
            window=self.window.variable,
        )


class Window:
    """Sums of what happened since metrics were last written.

    They are part of the checkpoint, so that the averages of a resumed run are those of a run that
    was never interrupted.
    """

    def __init__(self):
        with tf.device("CPU:0"):
            self.variable = tf.Variable(tf.zeros([STEP_RECORD + 1], tf.float64), trainable=False)
        self.clear()

    def clear(self) -> None:
        self._sums = np.zeros(STEP_RECORD + 1)

    def add(self, records: np.ndarray) -> None:
        """Adds float32 `[steps, STEP_RECORD]`, one step after another."""
        for record in records.astype(np.float64):
            self._sums[:-1] += record
            self._sums[-1] += 1

    def store(self) -> None:
        """Moves the sums to the variable that is saved."""
        self.variable.assign(self._sums)

    def load(self) -> None:
        """Takes the sums from the variable that was restored."""
        self._sums = self.variable.numpy()

    def averages(self) -> dict[str, float]:
        """Mean loss, gradient norm and loss of each bin of t (bins without examples left out)."""
        steps = max(self._sums[-1], 1.0)
        losses, counts = self._sums[2 : 2 + TIME_BINS], self._sums[2 + TIME_BINS : -1]
        found = {"loss": self._sums[0] / steps, "gradient_norm": self._sums[1] / steps}
        for i, (loss, count) in enumerate(zip(losses, counts)):
            if count:
                low, high = i / TIME_BINS, (i + 1) / TIME_BINS
                found[f"loss_by_t/{low:.1f}-{high:.1f}"] = loss / count
        return found
