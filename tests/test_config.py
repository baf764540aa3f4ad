"""Which differences between two configurations matter."""

import pytest

from bdm_tf import config
from bdm_tf.comparison import differences, without_effect
from bdm_tf.errors import UserError

RUN = """Model.network = @UNet
Model.parametrisation = @PredictEps()
PredictX.way = 1
UNet.channels = 8
sample.sampler = @AncestralSampler()
AncestralSampler.last_step = 'x_hat'
train.seed = 0
"""


def lines(*changes, old=RUN):
    new = old
    for before, after in changes:
        assert before in new
        new = new.replace(before, after)
    return [str(difference) for difference in differences(old, new)]


def test_what_is_learnt_must_be_the_same():
    assert lines() == []
    assert lines(("seed = 0", "seed = 1")) == ["train.seed: 0 there, 1 here"]
    assert lines(("channels = 8", "channels = 16")) == ["UNet.channels: 8 there, 16 here"]
    assert len(lines(("train.seed = 0\n", ""))) == 1


def test_how_samples_are_drawn_may_change():
    assert lines(("'x_hat'", "'noisy'")) == []
    other = "@DDIMSampler()\nDDIMSampler.grid = @PowerGrid()\nPowerGrid.power = 3.0"
    assert lines(("@AncestralSampler()", other)) == []
    assert lines(("train.seed = 0", "train.seed = 0\ntrain.sample_num_steps = 9")) == []


def test_what_both_sampling_and_training_use_may_not():
    shared = RUN.replace("train.seed = 0", "Model.prior = @AncestralSampler()")
    assert len(lines(("'x_hat'", "'noisy'"), old=shared)) == 1


@pytest.mark.parametrize(
    "added, counts",
    [
        ("Model.times = None", False),  # as if it were not there
        ("PredictV.angle = 1", False),  # of a class that nothing makes
        ("IHDMSampler.grid = @FittedGrid()\nFittedGrid.power = 1.0", False),
        ("Model.spectrum_sha256 = 'abc'", False),  # measured since
        ("Model.times = @FittedGrid()", True),
        ("train.flip = True", True),
    ],
)
def test_a_run_of_an_earlier_version_goes_on_where_nothing_is_learnt_otherwise(added, counts):
    assert bool(differences(RUN, f"{RUN}{added}\n")) == counts
    assert bool(differences(f"{RUN}{added}\n", RUN)) == counts


def test_a_file_that_includes_itself_is_refused(tmp_path):
    (tmp_path / "a.gin").write_text(f"include '{tmp_path}/a.gin'\n")
    with pytest.raises(UserError, match="cannot be used"):
        config.parse([str(tmp_path / "a.gin")], [])


@pytest.mark.parametrize(
    "binding, counts",
    [
        ("UNet.channels = 8", True),
        ("AncestralSampler.last_step = 'noisy'", True),
        ("FusedAdam.beta_1 = 0.8", True),
        ("train.seed = 1", True),
        ("PredictX.way = 2", False),
        ("keras.optimizers.Adam.beta_1 = 0.8", False),
    ],
)
def test_a_binding_of_what_nothing_makes_has_no_effect(binding, counts):
    values = config.parameters(f"{RUN}{binding}\n")
    assert without_effect([binding], values) == ([] if counts else [binding])
    chosen = config.parameters(f"{RUN}train.optimizer = @keras.optimizers.Adam()\n")
    assert without_effect(["keras.optimizers.Adam.beta_1 = 0.8"], chosen) == []
    assert without_effect(["FusedAdam.beta_1 = 0.8"], chosen)


def test_another_spectrum_is_a_difference():
    a, b = (f"{RUN}Model.spectrum_sha256 = '{v}'\n" for v in ("abc", "def"))
    assert [str(d) for d in differences(a, b)] == ["Model.spectrum_sha256: 'abc' there, 'def' here"]
