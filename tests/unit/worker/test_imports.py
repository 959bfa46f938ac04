"""What a process loads: libraries take seconds, and memory as long as it lives."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["worker.loop", "worker.heartbeat", "worker.metrics", "worker.batching"])
def test_the_queues_side_of_a_worker_loads_without_torch(module):
    """So that the fault harness may start workers by the dozen."""
    assert not loads(module, "torch")


def test_a_worker_loads_without_the_compiler_of_torch():
    """Which takes as long as the rest of torch, and 150 MB."""
    assert not loads("worker.process", "torch._dynamo")


def loads(module: str, library: str) -> bool:
    check = f"import sys, {module}; sys.exit({library!r} in sys.modules)"
    return subprocess.run([sys.executable, "-c", check], check=False).returncode != 0
