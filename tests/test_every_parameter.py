"""Every parameter of every part, given odd values: it works, or is refused by its name."""

import inspect
import re

import gin
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bdm_tf import config, exporting
from bdm_tf.data import TFDSImages
from bdm_tf.evaluation import InceptionFeatures, SavedModelFeatures
from bdm_tf.evaluation.job import make_evaluation
from bdm_tf.evaluation.paths import Paths
from bdm_tf.evaluation.stored_images import StoredImages
from bdm_tf.fitted import prepare_prior
from bdm_tf.model import build_model, build_sample_settings
from bdm_tf.networks import UNet
from bdm_tf.sample_settings import SampleSettings
from bdm_tf.sampling.ddim import DDIMSampler
from bdm_tf.spectrum import measure_spectrum
from bdm_tf.system.errors import UserError
from bdm_tf.training.optimizers import make_optimizer
from bdm_tf.training.previews import preview_settings
from bdm_tf.training.settings import TrainingSettings
from tests import small_network  # noqa: F401, for gin
from tests.conftest import TINY

VALUES = ["-1", "0", "0.5", str(10**30), "1e30", "None", "'text'", "True", "[]", "(1, 'a')"]
VALUES += ["@UNet"]
SHAPE = "Model.image_shape = (8, 8, 1)"
BLUR, IHDM = ["digits.gin"], ["digits.gin", "base/ihdm.gin"]
EDM = ["digits.gin", "base/edm.gin"]
WARM = ["digits.gin", "base/warm_diffusion.gin"]
RELAY = ["digits.gin", "base/relay_diffusion.gin"]
LOG = ["LogBlur.num_steps = 3", "sample.num_steps = 3"]
COLD = ["digits.gin", "base/cold_diffusion.gin"]
FEW = ["CumulativeBlur.num_steps = 3", "sample.num_steps = 3"]
EYE = np.eye(8).tolist()
# What puts each part into a model: gin files and bindings.
PARTS = {
    "DCT": (BLUR, []),
    "HaarWavelet": (BLUR, ["BlurringProcess.basis = @HaarWavelet()"]),
    "PixelBasis": (BLUR, ["BlurringProcess.basis = @PixelBasis()"]),
    "MatrixBasis": (
        BLUR,
        [
            "BlurringProcess.basis = @MatrixBasis()",
            f"MatrixBasis.rows = {EYE}",
            f"MatrixBasis.columns = {EYE}",
        ],
    ),
    "BlurSchedule": (BLUR, []),
    "CumulativeBlur": (COLD, FEW),
    "LogBlur": (IHDM, LOG),
    "ConstantNoise": (IHDM, LOG),
    "CosineSchedule": (BLUR, []),
    "GeometricNoise": (["digits.gin", "base/soft_diffusion.gin"], []),
    "BlurringProcess": (BLUR, []),
    "FittedGrid": (BLUR, []),
    "EDMSampler": (EDM, []),
    "RelaySampler": (RELAY, []),
    "WarmSampler": (WARM, []),
    "BlurByNoise": (WARM, []),
    "PredictBlurAndRest": (WARM, []),
    "ProgressiveNoise": (["digits.gin", "base/progressive_deblurring.gin"], []),
    "PatchDCT": (RELAY, []),
    "LogNormalNoise": (RELAY, []),
    "BlockNoise": (RELAY, []),
    "PowerLawNoise": (["digits.gin", "base/power_law_noise.gin"], []),
    "EqualSNRNoise": (["digits.gin", "base/equal_snr.gin"], []),
    "LogNormalGrid": (EDM, []),
    "PredictEDM": (EDM, []),
    "KarrasGrid": (BLUR, ["AngleSampler.grid = @KarrasGrid()"]),
    "PowerGrid": (BLUR, ["AngleSampler.grid = @PowerGrid()"]),
    "Model": (BLUR, []),
    "sample": (BLUR, []),
    "FrequencyUNet": (
        BLUR,
        [
            "FrequencyUNet.basis = @DCT()",
            "Model.network = @FrequencyUNet",
            "FrequencyUNet.network = @Convolutions",
        ],
    ),
    "UNet": (BLUR, ["Model.network = @UNet"]),
    "StepMSE": (IHDM, LOG),
    "PredictPreconditioned": (BLUR, []),
    "BlurredImages": (IHDM, LOG),
    "GaussianPrior": (["digits.gin", "base/soft_diffusion.gin"], []),
    "DynamicThreshold": (BLUR, ["sample.projection = @DynamicThreshold()"]),
    "SpectralClip": (BLUR, ["sample.projection = @SpectralClip()"]),
    "AncestralSampler": (BLUR, ["sample.sampler = @AncestralSampler()"]),
    "AngleSampler": (BLUR, []),
    "DDIMSampler": (BLUR, ["sample.sampler = @DDIMSampler()"]),
    "DPMSolver2MSampler": (BLUR, ["sample.sampler = @DPMSolver2MSampler()"]),
    "HeunSampler": (BLUR, ["sample.sampler = @HeunSampler()"]),
    "IHDMSampler": (IHDM, LOG),
    "MomentumSampler": (["digits.gin", "base/soft_diffusion.gin"], []),
    "NaiveSampler": (COLD, [*FEW, "sample.sampler = @NaiveSampler()"]),
}


def parameters_of(owner):
    kind = gin.get_configurable(owner)
    called = kind.__init__ if inspect.isclass(kind) else kind
    names = [n for n, p in inspect.signature(called).parameters.items() if p.kind != p.VAR_KEYWORD]
    given = ("image_shape",) if owner != "Model" else ()  # by who makes it
    return [n for n in names if n not in ("self", "args", "name", *given)]


CASES = [(owner, name) for owner in PARTS for name in parameters_of(owner)]
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)


def check_each(name, use):
    """Calls `use` with each value: it works, or its `UserError` names parameter or value."""
    problems = []
    for value in VALUES:
        named = {name, value.strip("@'")} if value[0] in "@'" else {name}
        try:
            use(value)
        except UserError as error:
            if not named & set(re.findall(r"\w+", error.message)):
                problems.append(f"{value}: {error.message}")
        except Exception as error:
            problems.append(f"{value}: {type(error).__name__} {str(error)[:300]}")
    assert not problems, "\n".join(problems)


def use_model(tmp_path):
    """Builds the model, and learns and samples with it once."""
    model = build_model()
    settings = build_sample_settings(model)
    prepare_prior(model, str(tmp_path), lambda: iter([IMAGES]))
    model.use_spectrum(measure_spectrum(lambda: iter([IMAGES]), model.process.basis), "these")
    x = tf.zeros([1, *model.image_shape])
    t = model.times_at(tf.constant([0.5]))
    loss = model.objective(model.learner(), x, t, tf.ones_like(x), tf.constant([0, 0]))
    settings.sampler(
        model.denoiser(settings.projection),
        shape=(1, *model.image_shape),
        seed=[0, 0],
        num_steps=min(settings.num_steps, 3),
    )
    return loss


@pytest.mark.parametrize("owner, name", CASES, ids=[".".join(case) for case in CASES])
def test_a_part_takes_or_refuses(owner, name, tmp_path):
    files, bindings = PARTS[owner]
    base = [*TINY, SHAPE, "Model.network = @Convolutions", "sample.num_steps = 3", *bindings]

    def use(value):
        config.parse(files, [*base, f"{owner}.{name} = {value}"])
        where = tmp_path / str(VALUES.index(value))
        where.mkdir()
        use_model(where)

    check_each(name, use)


RELAYED = [("RelayPrior", name) for name in parameters_of("RelayPrior")]


@pytest.mark.slow
@pytest.mark.parametrize("owner, name", RELAYED)
def test_a_relay_takes_or_refuses(owner, name, finished_run):
    base = [*TINY, "Model.image_shape = (16, 16, 1)", "Model.network = @Convolutions"]
    base += [
        "sample.prior = @RelayPrior()",
        f"RelayPrior.saved_model = '{finished_run}/saved_model'",
    ]

    def use(value):
        config.parse(["digits/relay_second.gin"], [*base, f"{owner}.{name} = {value}"])
        build_sample_settings(build_model())

    check_each(name, use)


TEXT = ("init_from", "text")
TRAINING = "num_steps batch_size learning_rate seed flip warmup_steps clip_norm ema_decay data"
TRAINING += " steps_per_call accumulation_steps jit_compile deterministic log_every eval_every"
TRAINING += " checkpoint_every keep_checkpoints keep_every async_checkpoints eval_images"
TRAINING += " sample_every sample_images sample_num_steps init_from label_dropout"
ODD = (-1, 0, 0.5, 10**30, 1e30, float("nan"), None, "text", True, [], UNet)


@pytest.mark.parametrize("name", TRAINING.split())
def test_training_takes_or_refuses(name):
    given = {"num_steps": 9, "batch_size": 2, "learning_rate": 1e-3, "data": TFDSImages("digits")}
    for value in ODD:
        try:
            TrainingSettings(**given | {name: value}).check_shared(1)
        except UserError as error:
            assert f"train.{name}" in error.message
        else:
            assert value in (0, 0.5, 1e30, 10**30, None, True) or (name, value) == TEXT, value


PREVIEWS = ["sample_sampler", "sample_projection"]


@pytest.mark.parametrize("name", PREVIEWS)
def test_previews_take_or_refuse(name):
    given = dict.fromkeys(("sampler", "num_steps", "projection"))
    for value in ODD:
        try:
            preview_settings(
                SampleSettings(DDIMSampler()), **given | {name[len("sample_") :]: value}
            )
        except UserError as error:
            assert f"train.{name}" in error.message
        else:
            assert value is None


ADAM = [("FusedAdam", name) for name in parameters_of("FusedAdam")]


@pytest.mark.parametrize("owner, name", [("train", "optimizer"), *ADAM])
def test_an_optimizer_takes_or_refuses(owner, name):
    def use(value):
        config.parse([], [f"{owner}.{name} = {value}"])
        make_optimizer(gin.get_bindings("train").get("optimizer"), 0.1)

    check_each(name, use)


def test_an_export_takes_or_refuses(tmp_path):
    def use(value):
        config.parse([], [f"export_saved_model.chunk_size = {value}"])
        exporting.check_finish(str(tmp_path))

    check_each("chunk_size", use)


@pytest.mark.parametrize("make", [InceptionFeatures, SavedModelFeatures])
def test_features_refuse_what_is_no_path(make):
    for value in ODD:
        if value is not None or make is SavedModelFeatures:  # None is downloaded
            with pytest.raises(UserError, match=rf"{make.__name__}\.path=|--features=text"):
                make(value)


DATA = [("TFDSImages", n) for n in parameters_of("TFDSImages")]
DATA += [("ImageFolder", n) for n in parameters_of("ImageFolder")]
DATA += [("Downsampled", n) for n in parameters_of("Downsampled")]


@pytest.mark.parametrize("owner, name", DATA, ids=[".".join(case) for case in DATA])
def test_a_data_set_takes_or_refuses(owner, name, digits_dir, tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    for path in ("train/a.png", "train/b.png", "test/c.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / path)
    folder = str(tmp_path) if owner == "ImageFolder" else digits_dir
    given = {"TFDSImages.name": "'digits'", "ImageFolder.image_size": "8"}
    given["Downsampled.source"] = "@TFDSImages()"

    def use(value):
        bound = {**given, f"{owner}.{name}": value}
        config.parse([], [f"{n} = {v}" for n, v in bound.items()])
        images, _ = gin.get_configurable(owner)().load(folder)
        assert next(iter(images.in_order(1))).shape == (1, *images.image_shape)

    check_each(name, use)


SCORES = [("evaluate", n) for n in "num_images batch_size num_steps seed best_by label".split()]
SCORES += [
    ("evaluate", n) for n in ("data", "features", "evaluators", "tensor_float_32", "guidance")
]
SCORES += [
    (owner, name)
    for owner in "FrechetDistance InceptionScore KernelDistance BitsPerDimension EvalLoss".split()
    + ["LabelAccuracy", "PrecisionRecall"]
    for name in parameters_of(owner)
    if name != "context"
]


@pytest.mark.parametrize("owner, name", SCORES, ids=[".".join(case) for case in SCORES])
def test_an_evaluation_takes_or_refuses(owner, name, digits_dir, tmp_path):
    np.savez(tmp_path / "images.npz", images=np.tile(IMAGES, (2, 1, 1, 1)))
    strategy = tf.distribute.get_strategy()
    few = ["evaluate.num_images = 40", "KernelDistance.subset_size = 20"]
    measured = owner if owner != "evaluate" else "FrechetDistance"
    few += ["KernelDistance.subsets = 2", f"evaluate.evaluators = [@FrechetFloor, @{measured}]"]

    def use(value):
        config.parse(["eval/digits.gin"], [*few, f"{owner}.{name} = {value}"])
        paths = Paths(cache_dir=str(tmp_path / "cache"), data_dir=digits_dir)
        evaluation = make_evaluation(StoredImages(f"{tmp_path}/images.npz"), strategy, paths)
        if owner != "KernelDistance":  # a million subsets take their time
            evaluation.score(str(tmp_path / "scratch"))

    check_each(name, use)


def test_every_parameter_is_among_these():
    tried = {*CASES, *RELAYED, *DATA, *SCORES, *ADAM, ("export_saved_model", "chunk_size")}
    tried |= {("train", name) for name in (*TRAINING.split(), *PREVIEWS, "optimizer")}
    tried |= {("InceptionFeatures", "path"), ("SavedModelFeatures", "path")}
    by_callers = {("evaluate", name) for name in ("subject", "strategy", "paths")}
    by_callers |= {("figure", name) for name in ("data", "data_dir", "process")}
    registered = {
        (selector.rpartition(".")[2], name)
        for selector, found in gin.config._REGISTRY.items()
        if found.wrapped.__module__.startswith("bdm_tf.") and ".optimizers." not in selector
        for name in parameters_of(selector)
        if name != "context"
    }
    assert registered - tried <= by_callers
