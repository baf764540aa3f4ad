"""The optimizers that gin knows: the library's, Keras's, and tensorflow-addons' where they import.

`train.optimizer = @keras.optimizers.Lion()` and `keras.optimizers.Lion.beta_1 = 0.95` choose one.
gin would make it as soon as `train` is called; here gin makes a recipe, and `make_optimizer` the
optimizer, once it may have variables and with training's learning rate.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gin
import keras
import tensorflow as tf

from bdm_tf import config
from bdm_tf.system.errors import UserError, first_line
from bdm_tf.system.keras_versions import remembers_all
from bdm_tf.training.adam import FusedAdam

_EXTRA = (
    'pip install -e ".[addons]", in an environment of its own with Python 3.10 or 3.11, brings it '
    "with the TensorFlow that it needs"
)
_GOES_ON = (
    "A run that was trained with it goes on there; --init_from=WORKDIR begins a new one with its "
    "averaged weights."
)
# What one Keras alone has, or has another default of: not noted in config.gin unless it is given.
_UNNOTED = {
    "learning_rate",
    "name",
    "jit_compile",
    "loss_scale_factor",
    "gradient_accumulation_steps",
    "ema_overwrite_frequency",
}
_NO_EQUAL = "Keras has no equal of it"
_EQUALS = {
    "AdaBelief": _NO_EQUAL,
    "AdamW": "Keras's equal is @keras.optimizers.AdamW(), whose weight_decay is times the rate",
    "ConditionalGradient": _NO_EQUAL,
    "LAMB": "Keras 3's equal is @keras.optimizers.Lamb(), but for how it decays weights",
    "LazyAdam": "Keras's equal is @keras.optimizers.Adam(): no gradient here is sparse",
    "Lookahead": _NO_EQUAL,
    "MovingAverage": "Its equal is train.ema_decay, or use_ema = True of any Keras optimizer",
    "NovoGrad": _NO_EQUAL,
    "ProximalAdagrad": _NO_EQUAL,
    "RectifiedAdam": _NO_EQUAL,
    "SGDW": "Keras's equal is @keras.optimizers.SGD(), whose weight_decay is times the rate",
    "SWA": "The nearest is train.ema_decay, or use_ema = True of any Keras optimizer",
    "Yogi": _NO_EQUAL,
}


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that grows linearly over the first `steps` and stays."""

    def __init__(self, learning_rate: float, steps: int):
        self.learning_rate, self.steps = learning_rate, steps

    def __call__(self, step):
        done = (tf.cast(step, tf.float32) + 1.0) / max(self.steps, 1)
        return self.learning_rate * tf.minimum(done, 1.0)

    def get_config(self):
        return {"learning_rate": self.learning_rate, "steps": self.steps}


@dataclass(frozen=True)
class Recipe:
    """An optimizer's class and what gin binds of its arguments, themselves recipes or values."""

    name: str
    kind: type
    arguments: dict[str, Any]

    def make(self, learning_rate):
        """The optimizer, or the one around another, with a learning rate.

        Raises:
            UserError: the optimizer does not take these arguments.
        """
        arguments = dict(self.arguments)
        if "learning_rate" in arguments:
            raise UserError(
                f"{self.name}.learning_rate = {arguments['learning_rate']!r} and "
                "train.learning_rate are both given: drop the first; train.learning_rate, with "
                "train.warmup_steps, is the rate of every optimizer"
            )
        if "optimizer" in arguments:
            inner = arguments["optimizer"]
            _check_made(inner, f"{self.name}.optimizer", self._way_out())
            arguments["optimizer"] = inner.make(learning_rate)
        takes = inspect.signature(self.kind).parameters
        if "learning_rate" in takes:
            arguments["learning_rate"] = learning_rate
        for name, value in self.arguments.items():
            if isinstance(value, str) and not isinstance(takes[name].default, str):
                raise UserError(f"{self.name}.{name} = {value!r} is text; numbers have no quotes")
        try:
            return self.kind(**arguments)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.name} cannot be made: {error}{self._way_out()}") from error

    def _way_out(self) -> str:
        takes = inspect.signature(self.kind).parameters
        if "weight_decay" in takes and takes["weight_decay"].default is inspect.Parameter.empty:
            return f"; for instance {self.name}.weight_decay = 1e-5, which is not times the rate"
        if "optimizer" not in takes:
            return ""
        return (
            f"; {self.name}.optimizer is another optimizer of tfa.optimizers or of "
            "keras.optimizers.legacy, for instance @tfa.optimizers.LazyAdam()"
        )


def make_optimizer(choice: Recipe | Callable | None, learning_rate):
    """The optimizer that `train.optimizer` chooses.

    Args:
        choice: what gin makes of `@keras.optimizers.Lion()`; or a function of the learning rate;
            None is `FusedAdam`.
        learning_rate: a number or a Keras schedule.

    Raises:
        UserError: there is no such optimizer.
    """
    if choice is None:
        choice = gin.get_configurable("FusedAdam")()
    if isinstance(choice, Recipe):
        return choice.make(learning_rate)
    if not callable(choice) or hasattr(choice, "makes"):
        way_out = ": one is chosen by its name in gin, for instance @keras.optimizers.AdamW()"
        _check_made(choice, "train.optimizer", way_out)
    try:
        return choice(learning_rate=learning_rate)
    except TypeError as error:
        raise UserError(
            f"train.optimizer = {choice!r} makes no optimizer of a learning rate: "
            f"{first_line(error)}"
        ) from error


def _check_made(choice, parameter: str, way_out: str) -> None:
    """Raises a `UserError` for the value of a parameter that is not a `Recipe`."""
    if hasattr(choice, "makes"):
        given = f"{parameter} = @{choice.makes}"
        raise UserError(f"{given} lacks its parentheses: {given}()")
    if not isinstance(choice, Recipe):
        raise UserError(f"{parameter} = {choice!r} is no optimizer{way_out}")


def _register(kind: type, module: str) -> None:
    name = f"{module}.{kind.__name__}"

    def recipe(**arguments):
        return Recipe(name, kind, arguments)

    recipe.makes = name  # type: ignore[attr-defined]
    # What gin checks names by, and notes defaults of.
    recipe.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            p.replace(kind=p.KEYWORD_ONLY, default=p.empty if p.name in _UNNOTED else p.default)
            for p in inspect.signature(kind).parameters.values()
            if p.kind is not p.VAR_KEYWORD
        ]
    )
    gin.external_configurable(recipe, kind.__name__, module=module)
    _NAMES.append(name)


def _register_all(library, module: str, base: type) -> None:
    for kind in vars(library).values():
        if not inspect.isclass(kind) or not issubclass(kind, base) or kind is base:
            continue
        if inspect.isabstract(kind) or not remembers_all(kind):
            continue
        takes = inspect.signature(kind).parameters
        if "learning_rate" in takes or (module.startswith("tfa") and "optimizer" in takes):
            _register(kind, module)


def _hint(message: str) -> str:
    """What to add to gin's message about the name of an optimizer that it does not know."""
    unknown = re.search(r"(?:No configurable matching|Ambiguous selector) .*?'@?([\w.]+)", message)
    module, _, name = unknown[1].rpartition(".") if unknown else ("", "", "")
    foreign = "tfa" in module or "addons" in module or module.endswith("optimizers.legacy")
    if not _ADDONS and (foreign or (name in _EQUALS and not module)):
        equal = _EQUALS.get(name, f"Keras's equal is @keras.optimizers.{name}()")
        if "legacy" not in module and name not in _EQUALS:
            equal = f"tfa.optimizers has {', '.join(_EQUALS)} to choose from"
        return f"\n{_MISSING}: {_EXTRA}. {equal}. {_GOES_ON}"
    known = [path for path in _NAMES if path.endswith(f".{name}")]
    if not known and "optimizers" in module:
        known = [path for path in _NAMES if path.startswith(f"{module}.")] or _NAMES
    return f"\nHere are {', '.join(known)}." if known else ""


_ADDONS: Any = None
_MISSING = "tensorflow-addons does not import here"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it announces its end
    try:
        import tensorflow_addons

        _ADDONS = tensorflow_addons
    except Exception as error:  # beside a TensorFlow that is not its own it fails in many ways
        _MISSING += f" ({first_line(error)})"
_NAMES: list[str] = []
_register(FusedAdam, "bdm_tf")
_register_all(keras.optimizers, "keras.optimizers", keras.optimizers.Optimizer)
if _ADDONS:
    legacy = keras.optimizers.legacy
    _register_all(legacy, "keras.optimizers.legacy", legacy.Optimizer)
    _register_all(_ADDONS.optimizers, "tfa.optimizers", legacy.Optimizer)
config.hints.append(_hint)
config.named_in_full += ("keras.optimizers.", "tfa.optimizers.")
