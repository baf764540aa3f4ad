"""Parts of a model that are none: refused before anything is built, with the way out."""

import os

import gin
import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import config, exporting, projections, sampling  # noqa: F401, exporting for gin
from bdm_tf.data.images import InMemoryImages
from bdm_tf.data.sources import load_splits
from bdm_tf.denoiser import Denoiser
from bdm_tf.grids import FittedGrid, KarrasGrid
from bdm_tf.model import build_model, build_sample_settings
from bdm_tf.system.errors import UserError
from bdm_tf.training import loop  # noqa: F401, for gin
from tests.conftest import ROOT, TINY
from tests.toy_models import blurring

ARRAY = np.zeros([3, 4, 4, 1], np.uint8)
IMAGES = InMemoryImages(ARRAY)
BINDINGS = {
    "sample.projection = @SpectralClip": r"= @SpectralClip lacks .*: @SpectralClip\(\)",
    "sample.projection = 'SpectralClip'": r"= 'SpectralClip' is no Projection: .*@SpectralClip\(\)",
    "sample.projection = True": "= True is no Projection",
    "sample.projection = @KarrasGrid()": r"= @KarrasGrid\(\) is no Projection",
    "sample.sampler = @AngleSampler": "= @AngleSampler lacks its parentheses",
    "sample.sampler = @SpectralClip()": r"is no Sampler: give one of @AncestralSampler\(\), @Angle",
    "AngleSampler.grid = @FittedGrid": "AngleSampler.grid = @FittedGrid lacks its parentheses",
    "AngleSampler.grid = 'karras'": r"is no TimeGrid: give one of @FittedGrid\(\), @KarrasGrid\(\)",
    "Model.times = @PixelClip()": "Model.times = .* is no TimeGrid",
    "Model.parametrisation = @PredictV": "lacks its parentheses",
    "Model.objective = @PredictV()": "Model.objective = .* is no Objective",
    "sample.clip = 'no'": "sample.clip='no' must be True or False",
    "sample.num_steps = 2.5": "sample.num_steps=2.5 must be a whole number",
    "sample.num_steps = None": "sample.num_steps=None must be a whole number",
    "sample.num_steps = '20'": "sample.num_steps='20' must be a whole number",
    "PredictPreconditioned.scale_input = 'yes'": "scale_input='yes' must be True or False",
}


@pytest.mark.parametrize("binding", BINDINGS)
def test_gin_values_of_another_kind_are_refused(binding):
    files = [os.path.join(ROOT, "gin", "digits.gin")]
    config.parse(files, [*TINY, "Model.image_shape = (8, 8, 1)", binding])
    with pytest.raises(UserError, match=BINDINGS[binding]):
        build_sample_settings(build_model())
    gin.clear_config()


def test_python_values_of_another_kind_are_refused():
    with pytest.raises(UserError, match="grid = @FittedGrid lacks its parentheses"):
        sampling.AngleSampler(FittedGrid)
    with pytest.raises(UserError, match="projection = @SpectralClip lacks its parentheses"):
        Denoiser(lambda z, t: z, blurring(), projections.SpectralClip)
    with pytest.raises(UserError, match="spectrum = .* is no Spectrum"):
        Denoiser(lambda z, t: z, blurring(), spectrum=(np.zeros(3), np.ones(3)))
    denoiser = Denoiser(lambda z, t: z, blurring())
    for steps in (np.int64(0), 2.5, True, "3"):
        with pytest.raises(UserError, match="num_steps=.* must be .*at least 1"):
            sampling.DDIMSampler(grid=KarrasGrid())(
                denoiser, shape=(1, 4, 4, 2), seed=[0, 0], num_steps=steps
            )


class Nothing(projections.Projection):
    def __call__(self, u_x_hat, *, process, spectrum, t):
        return None


class Thinner(projections.Projection):
    def __call__(self, u_x_hat, *, process, spectrum, t):
        return u_x_hat[..., :1]


@pytest.mark.parametrize("projection", [Nothing(), Thinner()])
def test_what_a_projection_must_return_is_said(projection):
    denoiser = Denoiser(lambda z, t: z, blurring(), projection)
    with pytest.raises(UserError, match=r" must return u_x_hat, of shape \(1, 4, 4, 2\)"):
        denoiser(tf.zeros([1, 4, 4, 2]), tf.constant([0.5]))


@pytest.mark.parametrize("loaded", [None, ARRAY, (ARRAY, None), (IMAGES, ARRAY), (IMAGES,)])
def test_what_a_source_of_ones_own_must_return_is_said(loaded):
    class Mine:
        def load(self, data_dir, on_corrupt_image):
            return loaded

    with pytest.raises(UserError, match="Mine.load must return two splits"):
        load_splits(Mine(), None)


def test_two_splits_are_taken_as_they_are():
    class Mine:
        def load(self, data_dir, on_corrupt_image):
            return IMAGES, None

    assert load_splits(Mine(), None) == (IMAGES, None)


def test_a_name_that_is_nearly_one_is_told():
    with pytest.raises(UserError, match="Did you mean SpectralClip"):
        config.parse([], ["sample.projection = @Spectralclip()"])
        gin.query_parameter("sample.projection")
