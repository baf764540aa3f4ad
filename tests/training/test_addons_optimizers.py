"""The optimizers of tensorflow-addons against their equations."""

import gin
import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import config
from bdm_tf.comparison import ema_decay
from bdm_tf.system import keras_versions
from bdm_tf.system.errors import UserError
from bdm_tf.training import (
    optimizers,
    settings,  # noqa: F401, for gin
)
from bdm_tf.training.optimizers import WarmUp, make_optimizer
from tests.conftest import NO_ADDONS
from tests.small_network import Convolutions
from tests.training.short_runs import short_run, weights_and_averages

tfa = pytest.importorskip("tensorflow_addons", reason=NO_ADDONS)

RATE = 0.125
GRADIENTS = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
AROUND_SGD = "{0}.optimizer = @keras.optimizers.legacy.SGD()"


def chosen(name, *parameters):
    name = f"tfa.optimizers.{name}"
    config.parse([], [f"train.optimizer = @{name}()", *(p.format(name) for p in parameters)])
    return make_optimizer(gin.get_bindings("train")["optimizer"], RATE)


def path(optimizer):
    """The weights after each step, from ones."""
    variable = tf.Variable(tf.ones([3]))
    keras_versions.build(optimizer, [variable])
    found = []
    for gradient in GRADIENTS:
        keras_versions.apply_reduced(optimizer, [tf.constant(gradient)], [variable])
        found.append(variable.numpy())
    return np.array(found)


def adams_updates(epsilon=1e-7, beta_2=0.999):
    m = v = np.zeros(3)
    for n, g in enumerate(GRADIENTS.astype(np.float64), start=1):
        m, v = 0.9 * m + 0.1 * g, beta_2 * v + (1 - beta_2) * g**2
        yield (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - beta_2**n)) + epsilon)


def test_adamw_decays_apart_from_the_gradient():
    x, expected = np.ones(3), []
    for update in adams_updates():
        x = x - 0.01 * x - RATE * update
        expected.append(x)
    found = path(chosen("AdamW", "{0}.weight_decay = 0.01"))
    np.testing.assert_allclose(found, expected, atol=3e-5)


def test_lazy_adam_is_adam_where_no_gradient_is_sparse():
    expected = 1 - RATE * np.cumsum(list(adams_updates()), axis=0)
    np.testing.assert_allclose(path(chosen("LazyAdam")), expected, atol=3e-5)


def test_lamb_scales_each_update_to_its_weights():
    x, expected = np.ones(3), []
    for update in adams_updates(epsilon=1e-6):
        update = update + 0.01 * x
        x = x - RATE * np.linalg.norm(x) / np.linalg.norm(update) * update
        expected.append(x)
    found = path(chosen("LAMB", "{0}.weight_decay = 0.01"))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_lookahead_steps_back_half_of_the_way():
    x, slow, expected = np.ones(3), np.ones(3), []
    for n, g in enumerate(GRADIENTS.astype(np.float64), start=1):
        x = x - RATE * g
        if n % 3 == 0:
            x = slow = slow + 0.5 * (x - slow)
        expected.append(x)
    found = path(chosen("Lookahead", AROUND_SGD, "{0}.sync_period = 3"))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_moving_average_is_what_is_sampled_from():
    def optimizer():
        return chosen("MovingAverage", AROUND_SGD, "{0}.average_decay = 0.75")

    (_, _), (_, before), (weights, after) = weights_and_averages(optimizer, 3)
    np.testing.assert_allclose(after, 0.75 * before + 0.25 * weights, atol=1e-6)


def test_stochastic_weight_averaging_is_what_is_sampled_from_once_it_has_begun():
    def optimizer():
        return chosen("SWA", AROUND_SGD, "{0}.start_averaging = 2", "{0}.average_period = 1")

    weights, averages = np.swapaxes(weights_and_averages(optimizer, 5), 0, 1)
    np.testing.assert_array_equal(averages[:2], weights[:2])
    for last in (2, 3, 4):
        np.testing.assert_allclose(averages[last], weights[2 : last + 1].mean(0), atol=1e-6)


NESTED = "tfa.optimizers.MovingAverage.optimizer = @keras.optimizers.legacy.SGD()"


def test_in_a_wrapper_inside_another_all_count_the_same_steps():
    config.parse(
        [],
        [
            "train.optimizer = @tfa.optimizers.Lookahead()",
            "tfa.optimizers.Lookahead.optimizer = @tfa.optimizers.MovingAverage()",
            "tfa.optimizers.Lookahead.slow_step_size = 1.0",
            NESTED,
        ],
    )
    optimizer = make_optimizer(gin.get_bindings("train")["optimizer"], WarmUp(1.0, 10))
    variable = tf.Variable([0.0])
    keras_versions.build(optimizer, [variable])
    for _ in range(10):
        keras_versions.apply_reduced(optimizer, [tf.constant([1.0])], [variable])
    np.testing.assert_allclose(variable, [-5.5], atol=1e-5)  # 0.1 + 0.2 + ... + 1.0
    assert len([v for v in keras_versions.state_of(optimizer) if v.dtype == tf.int64]) == 1
    assert keras_versions.own_averages(optimizer, [variable])[0].numpy() < 0


@pytest.mark.parametrize("name", ["Lookahead", "MovingAverage", "SWA"])
def test_copies_of_the_weights_begin_with_those_that_were_loaded(name):
    optimizer = chosen(name, AROUND_SGD, *["{0}.sync_period = 1"][: name == "Lookahead"])
    variable = tf.Variable([0.0])
    keras_versions.build(optimizer, [variable])
    variable.assign([100.0])
    keras_versions.start_from(optimizer, [variable])
    keras_versions.apply_reduced(optimizer, [tf.constant([0.0])], [variable])
    assert variable.numpy() == [100.0]
    for average in keras_versions.own_averages(optimizer, [variable]) or []:
        np.testing.assert_allclose(average, [100.0], rtol=1e-6)


@pytest.mark.parametrize(
    "parameters, expected",
    [
        (["AdamW"], "tfa.optimizers.AdamW.weight_decay = 1e-5"),
        (["SWA", "{0}.optimizer = 'sgd'"], "'sgd' is no optimizer"),
        (
            ["SWA", "{0}.optimizer = @tfa.optimizers.LAMB"],
            "its parentheses: tfa.optimizers.SWA.optimizer = @tfa.optimizers.LAMB()",
        ),
        (["SWA"], "@tfa.optimizers.LazyAdam()"),
        (["SWA", "{0}.optimizer = @keras.optimizers.AdamW()"], "keras.optimizers.legacy"),
        (["LAMB", "{0}.learning_rate = 1.0"], "drop the first"),
        (["Adams"], "tfa.optimizers.AdamW,"),
    ],
)
def test_what_is_missing_is_named(parameters, expected):
    with pytest.raises(UserError, match=expected.replace("(", r"\(").replace(")", r"\)")):
        chosen(*parameters)


def test_text_is_given_to_what_takes_text():
    optimizer = chosen("ConditionalGradient", "{0}.lambda_ = 1.0", "{0}.ord = 'nuclear'")
    assert optimizer.ord == "nuclear"


def test_an_optimizer_around_itself_is_named():
    around = {"SWA": "Lookahead", "Lookahead": "SWA"}
    circle = [f"tfa.optimizers.{a}.optimizer = @tfa.optimizers.{b}()" for a, b in around.items()]
    config.parse([], ["train.optimizer = @tfa.optimizers.SWA()", *circle])
    with pytest.raises(UserError) as caught:
        config.call(gin.get_bindings, "train")
    assert all(line in caught.value.message for line in circle)
    assert "train.optimizer" not in caught.value.message


def test_the_ones_named_to_those_without_tensorflow_addons_are_all():
    names = {name.rpartition(".")[2] for name in optimizers._NAMES if name.startswith("tfa.")}
    assert names == set(optimizers._EQUALS)


def test_a_run_goes_on_to_the_bit(tmp_path):
    """With what a wrapper and the optimizer within it remember."""
    given = (
        "{0}.optimizer = @tfa.optimizers.LAMB()",
        "{0}.start_averaging = 1",
        "{0}.average_period = 2",
    )

    def begun():
        trainer, state, batches = short_run(lambda: chosen("SWA", *given), network=Convolutions)
        return trainer, state, batches, state.checkpoint()

    trainer, state, batches, checkpoint = begun()
    trainer.run(batches, 4)
    saved = checkpoint.write(str(tmp_path / "saved"))
    trainer.run(batches, 4)
    trainer, again, batches, checkpoint = begun()
    for _ in range(4):
        next(batches)
    checkpoint.read(saved).assert_consumed()
    trainer.run(batches, 4)
    assert again.step == 8
    remembered = [
        [*s.weights, *s.ema_weights, *keras_versions.state_of(s.optimizer)] for s in (state, again)
    ]
    for whole, parts in zip(*remembered, strict=True):
        np.testing.assert_array_equal(whole, parts, err_msg=whole.name)
    assert any(np.any(w != a) for w, a in zip(state.weights, state.ema_weights))


@pytest.mark.parametrize(
    "within, expected", {"SWA": None, "MovingAverage": None, "LAMB": 0.5}.items()
)
def test_what_is_told_of_training_s_average_is_nothing_where_it_has_no_effect(within, expected):
    around = f"{{0}}.optimizer = @tfa.optimizers.{within}()"
    innermost = "tfa.optimizers.{}.optimizer = @tfa.optimizers.LAMB()"
    more = [] if within == "LAMB" else [innermost.format(within)]
    chosen("Lookahead", "train.ema_decay = 0.5", around, *more)
    assert ema_decay(config.parameters(config.operative_text())) == expected
