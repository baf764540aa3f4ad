"""Which differences between two configurations matter."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bdm_tf import config, exporting  # noqa: F401, for gin
from bdm_tf.comparison import differences, without_effect
from bdm_tf.system.errors import UserError
from bdm_tf.training import loop  # noqa: F401, for gin

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


def test_reading_gin_files_says_nothing_of_the_paths_that_were_tried(caplog):
    config.parse(["gin/digits.gin"], [])
    assert caplog.records == []


@pytest.mark.parametrize("name", ["sampling", "gin/sampling", "."])
def test_a_folder_is_no_gin_file(name):
    with pytest.raises(UserError, match=f"--gin_file={name} is a folder; give a .gin file"):
        config.parse(["digits.gin", name], [])


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
    with pytest.raises(UserError, match="include each other in a circle"):
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


def test_a_scope_that_nothing_is_made_in_is_refused():
    for name in ("train/num_steps", "a/sample.num_steps"):
        with pytest.raises(UserError, match=f"{name} = 4.* is of the scope .* did you mean"):
            config.parse(["gin/digits.gin"], [f"{name} = 4"])
    bound = ["AngleSampler.grid = @drawn/FittedGrid()", "drawn/FittedGrid.power = 0.5"]
    config.parse(["gin/digits.gin"], bound)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\xef\xbb\xbftrain.seed = 1", "begins with a byte order mark"),
        ("# f\xfcr mich".encode("latin-1"), "is not UTF-8 text"),
    ],
)
def test_a_gin_file_that_cannot_be_read_is_named(content, words, tmp_path):
    (tmp_path / "mine.gin").write_bytes(content)
    with pytest.raises(UserError, match=f"mine.gin.*{words}"):
        config.parse([str(tmp_path / "mine.gin")], [])


@pytest.mark.parametrize(
    "line, words",
    [
        ("train.num_steps = ５", ["    train.num_steps = ５", "U+FF15 FULLWIDTH DIGIT FIVE"]),
        ("train.seed = 1\N{NO-BREAK SPACE}", [r"train.seed = 1\xa0", "U+00A0 NO-BREAK SPACE"]),
        ("train.seed = 1 2  # für später", ["    train.seed = 1 2"]),
        ("train.seed = (1", ["mine.gin, line", "is a bracket or a quote left open?"]),
    ],
)
def test_the_line_that_is_no_gin_is_shown_with_what_is_odd_in_it(line, words, tmp_path):
    (tmp_path / "mine.gin").write_text(f"train.batch_size = 8\n{line}\n")
    with pytest.raises(UserError) as told:
        config.parse([str(tmp_path / "mine.gin")], [])
    for word in words:
        assert word in told.value.message
    assert ("U+" in told.value.message) == (len(words) == 2 and "U+" in words[1])


@pytest.mark.parametrize("binding", ["train.num_steps = 1,000", "train.seed = 1; UNet.x = 2"])
def test_a_binding_that_is_none_is_named(binding):
    with pytest.raises(UserError, match=f'in --gin_param="{binding}"'):
        config.parse(["gin/digits.gin"], ["train.batch_size = 8", binding])


def test_models_loaded_at_the_same_time_leave_gin_as_it_was():
    config.parse_text("train.batch_size = 77\n")

    def change(number):
        with config.apart(f"train.batch_size = {number}\n"):
            return config.bound_parameters()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(change, range(40)))
    assert found == [{"train.batch_size": str(n)} for n in range(40)]
    assert config.bound_parameters() == {"train.batch_size": "77"}


def test_a_binding_of_a_file_without_an_owner_is_warned_of(tmp_path, caplog):
    (tmp_path / "mine.gin").write_text("num_steps = 5\nused = 3\ntrain.warmup_steps = %used\n")
    config.parse([str(tmp_path / "mine.gin")], [])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert '"num_steps = 5" in a gin file names no owner of num_steps' in caplog.text
    caplog.clear()
    config.overlay([], ["train.seed = 1"])  # what is known is not said again
    assert caplog.records == []
