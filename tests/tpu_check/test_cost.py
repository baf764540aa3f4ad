"""FLOPs counted by hand, cycles of a program written by hand, names of slices."""

import keras
import pytest
import tensorflow as tf

from bdm_tf.networks import UNet
from bdm_tf.system.errors import UserError
from bdm_tf.tpu_check.cost import cycles, forward_flops
from bdm_tf.tpu_check.topology import parse_topology


class Small(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(5, 3, padding="same")
        self.conv.build([None, 4, 6, 2])
        self.dense = keras.layers.Dense(7)
        self.dense.build([None, 5])

    def call(self, z_t, t):
        h = tf.reshape(self.dense(self.conv(z_t)), [-1, 24, 7])
        return tf.matmul(h, h, transpose_a=True)


def test_flops_are_those_counted_by_hand():
    conv, dense, product = 2 * 24 * 5 * 9 * 2, 2 * 24 * 5 * 7, 2 * 7 * 7 * 24
    assert forward_flops(Small(), (4, 6, 2)) == conv + dense + product


def test_the_papers_cifar_10_unet_costs_35_billion():
    shape = (32, 32, 3)
    network = UNet(
        shape,
        channels=256,
        channel_multipliers=(1, 1, 1),
        num_res_blocks=3,
        attention_resolutions=(8, 16),
        head_dim=256,
    )
    assert forward_flops(network, shape) == pytest.approx(35.4e9, rel=0.02)


HLO = """HloModule m
%fused.1 (p: f32[8]) -> f32[8] {
  ROOT %c = f32[8] convolution(%p, %p), backend_config={"estimated_cycles":"999"}
}
%fused.2 (p: f32[8]) -> f32[8] {
  ROOT %a = f32[8] add(%p, %p)
}
%body.3 (p: f32[8]) -> f32[8] {
  ROOT %copy.1 = f32[8] copy(%p), metadata={op_name="net/up_1/add"}, X={"estimated_cycles":"5"}
}
ENTRY %main.4 (p: f32[8]) -> f32[8] {
  %f.1 = f32[8] fusion(%p), kind=kOutput, calls=%fused.1, X={"estimated_cycles":"70"}
  %f.2 = f32[8] fusion(%f.1), calls=%fused.2, metadata={op_name="net/up_2/add"}, X={"estimated_cycles":"20"}
  ROOT %w = f32[8] while(%f.2), body=%body.3
}
"""  # noqa: E501


def test_cycles_are_summed_by_what_does_the_work():
    assert cycles(HLO) == {
        "total": 95,
        "loops": [],
        "matrix_unit": 70,
        "other_by_kind": {"fusion": 20, "copy": 5},
        "dearest_others": {"up/add": 25},
    }


LOOPS = """HloModule m
%under.1 (p: (s32[], f32[8])) -> pred[] {
  %n = s32[]{:T(128)} constant(4)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %n), direction=LT
}
%inner.2 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %c.1 = f32[8] convolution(%p, %p), X={"estimated_cycles":"5"}
}
%above.3 (p: (s32[], f32[8])) -> pred[] {
  %z = s32[]{:T(128)} constant(0)
  ROOT %greater = pred[]{:T(512)} compare(%i, %z), direction=GT
}
%outer.4 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %w.1 = (s32[], f32[8]) while(%p), condition=%under.1, body=%inner.2
  %a.1 = f32[8] add(%p), X={"estimated_cycles":"100"}
}
ENTRY %main.5 (p: f32[8]) -> f32[8] {
  ROOT %w.2 = (s32[], f32[8]) while(%t), condition=%OUTER, body=%outer.4
}
"""


@pytest.mark.parametrize(("condition", "times"), [("above.3", 1), ("under.1", 4)])
def test_a_loop_to_a_constant_counts_so_often_and_a_samplers_loop_once(condition, times):
    found = cycles(LOOPS.replace("OUTER", condition))
    assert found["matrix_unit"] == times * 4 * 5
    assert found["total"] == times * (4 * 5 + 100)
    assert found["loops"] == [4, times]


def test_slices_have_names():
    assert parse_topology("v5e:2x4").num_chips == 8
    assert parse_topology("v4:2x2x1").chip.hbm == 32 * 2**30
    for wrong in ("v5e", "v9:2x2", "v4:2x2", "v5e:0x2", "v5e:2x2x2"):
        with pytest.raises(UserError, match="must be a chip"):
            parse_topology(wrong)
