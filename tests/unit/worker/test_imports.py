"""The queue's side of a worker runs without torch, so that the fault harness may start workers by the dozen."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["worker.loop", "worker.heartbeat", "worker.metrics", "worker.batching"])
def test_the_loop_and_what_it_needs_load_without_torch(module):
    check = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
