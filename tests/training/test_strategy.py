"""How a strategy is chosen, and what is said where it cannot be had."""

import json
import socket
import threading

import pytest
import tensorflow as tf

from bdm_tf.system.cluster import Cluster
from bdm_tf.system.errors import TryAgain, UserError
from bdm_tf.training import strategy
from bdm_tf.training.strategy import describe, make_strategy
from tests.workers import free_ports


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(strategy.glob, "glob", lambda _: [])


def test_a_lone_worker_says_for_whom_it_waits(monkeypatch, capsys):
    one, two, three = free_ports(3)
    cluster = {
        "cluster": {
            "chief": [f"127.0.0.1:{one}"],
            "worker": [f"127.0.0.1:{p}" for p in (two, three)],
        },
        "task": {"type": "worker", "index": 0},
    }
    waiting = threading.Thread(target=strategy._wait_for_workers, args=(cluster, 0.3))
    with socket.create_server(("127.0.0.1", three)):
        waiting.start()
        waiting.join(1.5)
        assert waiting.is_alive()
        socket.create_connection(("127.0.0.1", two), timeout=5).close()  # by which others see it
        with socket.create_server(("127.0.0.1", one)):
            waiting.join(10)
            assert not waiting.is_alive()
    out = capsys.readouterr().out
    assert "waiting for 3 worker(s)" in out
    assert f"still waiting for 127.0.0.1:{one}\n" in out  # the other is there


def test_flags_that_would_be_ignored_are_refused():
    with pytest.raises(UserError, match="--tpu=pod goes with --strategy=tpu, not"):
        make_strategy("one_device", "pod")
    with pytest.raises(UserError, match="sees no GPU here; --strategy=one_device"):
        make_strategy("mirrored")


def test_one_device_is_one_worker(monkeypatch):
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert describe(make_strategy("one_device")) == "1 replica(s), here CPU:0"


def test_tensorflows_default_strategy_is_described():
    assert describe(tf.distribute.get_strategy()).startswith("1 replica(s), here TensorFlow's")


@pytest.mark.parametrize("given, found", [("flag", "flag"), (None, "of-the-environment")])
def test_the_tpu_of_the_environment_is_taken_and_its_error_is_one_line(given, found, monkeypatch):
    monkeypatch.setenv("TPU_NAME", "of-the-environment")

    def resolver(tpu):
        raise ValueError(f"no {tpu}\nand thirty lines more")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    for name in ("auto", "tpu"):
        with pytest.raises(UserError) as error:
            make_strategy(name, given)
        assert error.value.message == f"--strategy=tpu: cannot reach {found}: no {found}"


@pytest.mark.parametrize("libtpu, attached", [(None, False), (object(), True)])
def test_cards_for_virtual_machines_are_tpus_where_there_is_libtpu(libtpu, attached, monkeypatch):
    monkeypatch.setattr(
        strategy.glob, "glob", lambda p: ["/dev/vfio/0"] if p.startswith("/dev/vfio") else []
    )
    monkeypatch.setattr(strategy.importlib.util, "find_spec", lambda _: libtpu)
    assert strategy._tpu_attached() is attached


def test_only_after_all_have_come_may_a_worker_be_gone(monkeypatch):
    """TensorFlow has a worker hear of a sum before the others have their parts of it."""
    cluster = Cluster()
    cluster.num_workers, cluster.index, heard = 2, 1, []

    def everyone(numbers):
        heard.append(numbers)
        if len(heard) == gone_at:
            raise TryAgain("the other is gone")

    monkeypatch.setattr(cluster, "everyone", everyone)
    gone_at = 2
    cluster.leave()
    assert len(heard) == 2
    heard.clear()
    gone_at = 1
    with pytest.raises(TryAgain):
        cluster.leave()
