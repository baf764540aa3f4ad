"""What a sampler of one's own gets wrong is named, before anything is trained or drawn."""

import pytest

from bdm_tf import config
from bdm_tf.denoiser import Denoiser
from bdm_tf.sampling import DPMSolver2MSampler, Sampler
from bdm_tf.system.errors import UserError
from tests.conftest import run_afresh, train_command
from tests.toy_models import blurring, small_network

DENOISER = Denoiser(small_network, blurring())
MINE = """
import gin
from bdm_tf.sampling import Sampler

@gin.register
class Mine(Sampler):
    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        return noise
"""


class Without(Sampler):
    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        return noise


class OtherShape(Sampler):
    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        return noise[:, :2], memory


class OtherMemory(Sampler):
    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        return noise, (noise,)


class NoInit(Sampler):
    def __init__(self):
        pass

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        return noise, memory


MISTAKES = [
    (Without, r"Without.step must return \(u_s, memory\)"),
    (OtherShape, "OtherShape.step must return u_s of shape"),
    (OtherMemory, "OtherMemory.memory begins with: 0 tensors"),
]


@pytest.mark.parametrize("sampler, message", MISTAKES, ids=lambda v: getattr(v, "__name__", ""))
def test_what_a_step_must_return_is_said_when_it_is_built_and_when_it_draws(sampler, message):
    with pytest.raises(UserError, match=message):
        sampler().try_step(DENOISER)
    with pytest.raises(UserError, match=message):
        sampler()(DENOISER, shape=(2, 4, 4, 2), seed=[0, 0], num_steps=2)


def test_a_forgotten_super_is_named():
    with pytest.raises(UserError, match=r"NoInit.__init__ must call super\(\).__init__\(grid\)"):
        NoInit().check(DENOISER)


def test_a_sound_step_with_a_memory_can_be_built():
    DPMSolver2MSampler().try_step(DENOISER)


def test_training_refuses_a_wrong_sampler_before_its_first_step(tmp_path, digits_dir):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "mine.gin").write_text("import mine\nsample.sampler = @Mine()\n")
    train = train_command(
        tmp_path / "run", digits_dir, extra=[f"--gin_file={tmp_path / 'mine.gin'}"]
    )
    result = run_afresh(train, env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr[-2000:]
    assert "Mine.step must return (u_s, memory)" in result.stderr
    assert "training from" not in result.stdout


def test_a_class_that_is_not_registered_is_told_so():
    with pytest.raises(UserError, match="needs @gin.register, its module an import"):
        config.parse(["gin/digits.gin"], ["sample.sampler = @Plain()"])
