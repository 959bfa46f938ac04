"""A batch that memory does not hold is halved; the limit is a real one, of a process of its own."""

import json
import subprocess
import sys
from array import array

import pytest
import torch

from worker.runner import RunnerStats
from worker.splitting import start_fitting

SHORT = [[token, 7, 8] for token in range(5)]
LONG = 60_000
LIMITED = """
import json, resource, sys
from array import array
import torch
from worker.model.checkpoint import resolve_checkpoint
from worker.packed_runner import PackedRunner
from worker.placement import Placement
from worker.splitting import start_fitting

folder, short, num_long = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
checkpoint = resolve_checkpoint(folder, task=None, name=None, revision="x")
runner = PackedRunner(checkpoint, Placement.choose("cpu", "float32"))
sequences = [array("i", ids) for ids in short]
sequences.insert(2, array("i", [1000] + [9] * (num_long - 1)))
alone = [runner.start([ids])().tolist()[0] for ids in sequences[:2] + sequences[3:]]
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
rows = start_fitting(runner, sequences)()
print(json.dumps({"rows": [None if row is None else row.tolist() for row in rows], "alone": alone}))
"""


def test_a_text_that_memory_does_not_hold_fails_alone(embedding_checkpoint):
    command = [sys.executable, "-c", LIMITED, str(embedding_checkpoint), json.dumps(SHORT), str(LONG)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row is None for row in found["rows"]] == [False, False, True, False, False, False]
    fitting = torch.tensor([row for row in found["rows"] if row is not None])
    assert torch.allclose(fitting, torch.tensor(found["alone"]), atol=1e-5)


class SmallDevice:
    """Stands in for an accelerator: its memory holds so many tokens, and a row is the sum of its tokens."""

    engine = attention = kernels = "small"

    def __init__(self, num_tokens: int, error: Exception | None = None) -> None:
        self.num_tokens = num_tokens
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.ran = []
        self.num_released = 0

    def start(self, sequences, prefixes=()):
        if sum(map(len, sequences)) > self.num_tokens:
            raise self.error
        self.ran.append(len(sequences))
        return lambda: torch.tensor([[float(sum(ids))] for ids in sequences])

    def release_memory(self):
        self.num_released += 1

    def count_computed(self, sequences):
        return sum(map(len, sequences))

    def stats(self):
        return RunnerStats(num_input_tokens=0, num_computed_tokens=0)


def rows_of(device, lengths):
    fitted = start_fitting(device, [array("i", [place] * length) for place, length in enumerate(lengths, 1)])()
    return [None if row is None else float(row) for row in fitted]


def test_a_batch_that_fits_runs_once():
    device = SmallDevice(100)
    assert rows_of(device, [10, 20, 30]) == [10, 40, 90]
    assert (device.ran, device.num_released) == ([3], 0)


def test_a_batch_that_does_not_fit_runs_in_parts_and_keeps_its_order():
    device = SmallDevice(40)
    assert rows_of(device, [10, 20, 30, 10, 10]) == [10, 40, 90, 40, 50]
    assert device.ran == [2, 1, 2]
    assert device.num_released == 2


def test_only_texts_too_large_alone_have_no_row():
    assert rows_of(SmallDevice(25), [10, 30, 10, 26, 25]) == [10, None, 30, None, 125]


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError("std::bad_alloc"),
    ],
    ids=str,
)
def test_a_lack_of_memory_has_many_names(error):
    assert rows_of(SmallDevice(25, error), [10, 30, 10]) == [10, None, 30]


def test_another_error_is_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        rows_of(SmallDevice(1, RuntimeError("CUDA error: an illegal memory access was encountered")), [10])
