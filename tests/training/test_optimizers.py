"""Optimizers by their names in gin, and what is said about those that cannot be."""

import re

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import config
from bdm_tf.comparison import ema_decay
from bdm_tf.system.errors import UserError
from bdm_tf.system.keras_versions import raw_variables
from bdm_tf.training import (
    optimizers,
    settings,  # noqa: F401, for gin
)
from bdm_tf.training.adam import FusedAdam
from bdm_tf.training.optimizers import make_optimizer
from tests.training.short_runs import weights_and_averages

RATE = 0.25


def chosen(*parameters):
    """The optimizer that gin's parameters choose for a training run."""
    config.parse([], parameters)
    return make_optimizer(gin.get_bindings("train").get("optimizer"), RATE)


def refusal(*parameters):
    with pytest.raises(UserError) as caught:
        chosen(*parameters)
    return caught.value.message


def test_without_a_choice_it_is_the_fused_adam():
    optimizer = chosen("FusedAdam.beta_1 = 0.5")
    assert type(optimizer) is FusedAdam and optimizer.beta_1 == 0.5


@pytest.mark.parametrize(
    "binding", ["beta_1 = 2.0", "beta_2 = None", "epsilon = -1", "weight_decay = -0.1"]
)
def test_fused_adam_s_numbers_have_ranges(binding):
    assert f"FusedAdam.{binding.replace(' ', '')} must be a number" in refusal(
        f"FusedAdam.{binding}"
    )


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Lion", "RMSprop", "Adafactor"])
def test_keras_optimizers_take_training_s_rate(name):
    optimizer = chosen(f"train.optimizer = @keras.optimizers.{name}()")
    assert type(optimizer) is getattr(keras.optimizers, name)
    assert float(optimizer.learning_rate) == RATE


def test_its_parameters_are_gin_s():
    optimizer = chosen(
        "train.optimizer = @keras.optimizers.SGD()", "keras.optimizers.SGD.momentum = 0.75"
    )
    assert optimizer.momentum == 0.75
    assert "SGD.momentum = 0.75" in config.operative_text()
    assert "SGD.nesterov = False" in config.operative_text()


def test_the_optimizer_is_made_under_the_strategy():
    config.parse([], ["train.optimizer = @keras.optimizers.SGD()"])
    choice = gin.get_bindings("train")["optimizer"]
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        optimizer = make_optimizer(choice, RATE)
        optimizer.build([])
    assert isinstance(raw_variables([optimizer.iterations])[0], tf.distribute.DistributedValues)


def test_a_function_of_the_rate_is_an_optimizer_too():
    assert float(make_optimizer(keras.optimizers.SGD, RATE).learning_rate) == RATE


@pytest.mark.parametrize("name", ["keras.optimizers.SGD", "bdm_tf.FusedAdam"])
def test_of_two_rates_the_one_to_drop_is_named(name):
    said = refusal(f"train.optimizer = @{name}()", f"{name}.learning_rate = 0.125")
    assert "drop" in said and f"{name}.learning_rate = 0.125" in said


@pytest.mark.parametrize(
    "parameter, expected",
    {
        "train.optimizer = @keras.optimizers.SGD": "@keras.optimizers.SGD()",
        "train.optimizer = 'adam'": "@keras.optimizers.AdamW()",
        "train.optimizer = @keras.optimizers.Adma()": "keras.optimizers.Adam,",
        "keras.optimizers.SGD.momemtum = 1": "Did you mean momentum?",
        "keras.optimizers.SGD.x = 1": "It has learning_rate, momentum, nesterov,",
        "train.optimizer = keras.optimizers.SGD()": "with an @",
    }.items(),
)
def test_what_is_none_is_answered_with_one_that_is(parameter, expected):
    assert expected in refusal(parameter)


needs_no_addons = pytest.mark.skipif(
    optimizers._ADDONS is not None, reason="tensorflow-addons is here"
)


@needs_no_addons
@pytest.mark.parametrize("name", optimizers._EQUALS)
def test_without_tensorflow_addons_the_extra_and_keras_s_equal_are_named(name):
    for line in (f"train.optimizer = @tfa.optimizers.{name}()", f"tfa.optimizers.{name}.x = 1"):
        said = refusal(line)
        assert 'pip install -e ".[addons]"' in said and "--init_from=WORKDIR" in said
        for equal in re.findall(r"@keras\.optimizers\.(\w+)", said):
            assert hasattr(keras.optimizers, equal) or equal == "Lamb"  # which Keras 2 has not
        assert "Keras" in said or "train.ema_decay" in said


@needs_no_addons
@pytest.mark.parametrize("name", ["COCOB", "Nonsense"])
def test_what_the_extra_would_not_bring_is_answered_with_what_it_would(name):
    said = refusal(f"train.optimizer = @tfa.optimizers.{name}()")
    assert "tfa.optimizers has AdaBelief, AdamW," in said and "no equal" not in said


@pytest.mark.parametrize(
    "line, expected",
    {
        "train.optimizer = @keras.optimizers.legacy.SGDD()": "keras.optimizers",
        "train.optimizer = @tf.keras.optimizers.Adam()": "keras.optimizers.Adam",
        "train.optimizer = @tfa.optimizer.LAMB()": "LAMB" if optimizers._ADDONS else ".[addons]",
    }.items(),
)
def test_near_misses_are_answered(line, expected):
    assert expected in refusal(line).partition("^")[2]


def test_names_are_noted_in_full_and_what_one_keras_alone_has_is_not():
    chosen("train.optimizer = @keras.optimizers.SGD()")
    text = config.operative_text()
    assert "keras.optimizers.SGD.nesterov = False" in text
    assert "train.optimizer = @keras.optimizers.SGD()" in text
    assert "jit_compile" not in text and "loss_scale_factor" not in text


def test_a_number_in_quotes_is_named():
    said = refusal(
        "train.optimizer = @keras.optimizers.AdamW()", "keras.optimizers.AdamW.weight_decay = '1'"
    )
    assert said == "keras.optimizers.AdamW.weight_decay = '1' is text; numbers have no quotes"


def test_what_an_optimizer_refuses_is_said_with_its_name():
    said = refusal(
        "train.optimizer = @keras.optimizers.SGD()", "keras.optimizers.SGD.momentum = -1"
    )
    assert said.startswith("keras.optimizers.SGD cannot be made: ")


def test_an_average_of_the_optimizer_s_own_takes_the_place_of_training_s():
    steps = weights_and_averages(
        lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), 3
    )
    (_, _), (_, before), (weights, after) = steps
    np.testing.assert_allclose(after, (before + weights) / 2, atol=1e-6)


@pytest.mark.parametrize("use_ema, expected", [(True, None), (False, 0.5)])
def test_what_is_told_of_training_s_average_is_nothing_where_it_has_no_effect(use_ema, expected):
    ours = "train.ema_decay = 0.5"
    chosen(
        ours,
        "train.optimizer = @keras.optimizers.SGD()",
        f"keras.optimizers.SGD.use_ema = {use_ema}",
        "keras.optimizers.Adam.use_ema = True",  # which is not the one chosen
    )
    assert ema_decay(config.parameters(config.operative_text())) == expected
