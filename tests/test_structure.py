"""The house: imports go down, files stay small."""

import ast
import glob
import os

from tests.conftest import ROOT

# From the ground up; a module may import what stands before it, or its own folder.
FLOORS = [
    "bdm_tf.system.interrupts",
    "bdm_tf.system.terminal",
    "bdm_tf.system.errors",
    "bdm_tf.system.paths",
    "bdm_tf.system.files",
    "bdm_tf.system.locks",
    "bdm_tf.system.checkpoint_files",
    "bdm_tf.system.keras_versions",
    "bdm_tf.system.cluster",
    "bdm_tf.gin_messages",
    "bdm_tf.macros",
    "bdm_tf.config",
    "bdm_tf.comparison",
    "bdm_tf.history",
    "bdm_tf.noise",
    "bdm_tf.classes",
    "bdm_tf.diffusion",
    "bdm_tf.networks",
    "bdm_tf.data",
    "bdm_tf.spectrum",
    "bdm_tf.angles",
    "bdm_tf.grids",
    "bdm_tf.parametrisations",
    "bdm_tf.warm",
    "bdm_tf.priors",
    "bdm_tf.fitted_priors",
    "bdm_tf.noise_prior",
    "bdm_tf.saved_models",
    "bdm_tf.relay_prior",
    "bdm_tf.projections",
    "bdm_tf.denoiser",
    "bdm_tf.trust",
    "bdm_tf.fitted",
    "bdm_tf.objectives",
    "bdm_tf.sampling",
    "bdm_tf.restoration.known",
    "bdm_tf.restoration.functions",
    "bdm_tf.likelihood",
    "bdm_tf.training.settings",
    "bdm_tf.training.strategy",
    "bdm_tf.replicas",
    "bdm_tf.training.state",
    "bdm_tf.training.adam",
    "bdm_tf.training.optimizers",
    "bdm_tf.training.checkpoints",
    "bdm_tf.training.signals",
    "bdm_tf.weights",
    "bdm_tf.sample_settings",
    "bdm_tf.model",
    "bdm_tf.trajectories",
    "bdm_tf.relations",
    "bdm_tf.image_grids",
    "bdm_tf.sample_files",
    "bdm_tf.process_figures",
    "bdm_tf.training.lock",
    "bdm_tf.training.claims",
    "bdm_tf.training.workdir",
    "bdm_tf.training.previews",
    "bdm_tf.training.preparation",
    "bdm_tf.training.trainer",
    "bdm_tf.training.run",
    "bdm_tf.training.loop",
    "bdm_tf.export_folders",
    "bdm_tf.exported_model",
    "bdm_tf.exporting",
    "bdm_tf.stablehlo",
    "bdm_tf.tpu_check",
    "bdm_tf.evaluation",
    "bdm_tf.restoration",
    "bdm_tf.train",
    "bdm_tf.evaluate",
    "bdm_tf.export",
    "bdm_tf.sample",
    "bdm_tf.restore",
    "bdm_tf.figures",
]


ROOFS = ("bdm_tf", "bdm_tf.system", "bdm_tf.training")  # these alone hold nothing


def floor(module):
    matches = [i for i, name in enumerate(FLOORS) if f"{module}.".startswith(f"{name}.")]
    return matches[0] if matches else -1


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bdm_tf"):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules():
    for path in glob.glob(os.path.join(ROOT, "bdm_tf", "**", "*.py"), recursive=True):
        name = os.path.relpath(path, ROOT)[: -len(".py")].replace(os.sep, ".")
        yield path, name.removesuffix(".__init__")


def test_imports_go_down_only():
    for path, module in modules():
        with open(path) as file:
            for name in imported(ast.parse(file.read())):
                assert floor(name) <= floor(module), f"{module} imports {name}, which is above it"


def test_every_module_has_its_floor():
    for _, module in modules():
        assert floor(module) >= 0 or module in ROOFS, module


def test_no_file_is_longer_than_a_room_should_be():
    for path, module in modules():
        with open(path) as file:
            assert len(file.readlines()) <= 320, module
