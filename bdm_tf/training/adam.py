"""Adam with one fused kernel a variable."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

from bdm_tf.system.errors import check_between
from bdm_tf.system.keras_versions import place_of, raw_variables


class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam`, its update done by TensorFlow's fused kernel.

    The update is the same (Kingma & Ba 2015, section 2, the reordered form). Keras spells it out
    in about forty operations a variable, which is half the graph of a small UNet's training step
    and several passes over the memory of a large one's.

    Args:
        learning_rate: a number or a Keras schedule.
        beta_1, beta_2: decay of the first and second moment, in [0, 1).
        epsilon: added to the root of the second moment; above 0.
        weight_decay: decoupled, as in AdamW, at least 0; None for none.

    Raises:
        UserError: one is out of range.
    """

    def __init__(
        self,
        learning_rate=2e-4,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        name: str = "adam",
    ):
        check_between("FusedAdam.beta_1", beta_1, 0, 1, without_high=True)
        check_between("FusedAdam.beta_2", beta_2, 0, 1, without_high=True)
        check_between("FusedAdam.epsilon", epsilon, 0, without_low=True)
        if weight_decay is not None:
            check_between("FusedAdam.weight_decay", weight_decay, 0)
        if not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            check_between("FusedAdam.learning_rate", learning_rate, 0)
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            weight_decay=weight_decay,
            name=name,
        )
        self._scalars: dict = {}  # of the step whose variables are being updated

    @functools.wraps(keras.optimizers.Adam.apply_gradients)
    def apply_gradients(self, *given, **named):
        self._scalars = {}
        try:
            return super().apply_gradients(*given, **named)
        finally:
            self._scalars = {}

    def update_step(self, gradient, variable, learning_rate=None):
        if learning_rate is None:  # Keras 2 does not hand it over
            learning_rate = self.learning_rate
        index = place_of(self, variable)
        moments = raw_variables([self._momentums[index], self._velocities[index]])
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=moments[0].handle,
            v=moments[1].handle,
            grad=gradient,
            **self._of_this_step(learning_rate),
        )

    def _of_this_step(self, learning_rate) -> dict:
        """What all variables share, computed once a step and not hundreds of times."""
        graph = tf.compat.v1.get_default_graph()
        if graph not in self._scalars:
            step = tf.cast(self.iterations + 1, tf.float32)
            self._scalars[graph] = {
                "beta1_power": tf.pow(self.beta_1, step),
                "beta2_power": tf.pow(self.beta_2, step),
                "lr": tf.cast(learning_rate, tf.float32),
                "beta1": tf.constant(self.beta_1),
                "beta2": tf.constant(self.beta_2),
                "epsilon": tf.constant(self.epsilon),
            }
        return self._scalars[graph]
