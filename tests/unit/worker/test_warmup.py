"""What warm-up finds out of a device's memory. The device is one of tests that holds so many tokens at once."""

import pytest
import torch

from runtime.errors import SettingError
from worker.runner import RunnerStats
from worker.warmup import find_budget, warm_up


class Device:
    engine = attention = kernels = "device"

    def __init__(self, num_tokens, error=torch.OutOfMemoryError):
        self.num_tokens = num_tokens
        self.error = error
        self.batches = []

    def start(self, sequences, prefixes=()):
        self.batches.append([len(ids) for ids in sequences])
        if sum(map(len, sequences)) > self.num_tokens:
            raise self.error("no memory")
        return lambda: torch.zeros(len(sequences), 4)

    def release_memory(self):
        pass

    def count_computed(self, sequences):
        return 0

    def stats(self):
        return RunnerStats(num_input_tokens=0, num_computed_tokens=0)


def find(device, *, largest=32_768, max_input_tokens=2048):
    return find_budget(device, largest=largest, max_input_tokens=max_input_tokens, vocab_size=1000)


def test_a_batch_that_fits_is_the_budget():
    device = Device(40_000)
    assert find(device) == 32_768
    assert device.batches == [[2048], [512] * 64]


def test_the_budget_is_halved_until_it_fits():
    assert find(Device(20_000)) == 16_384
    assert find(Device(5000), largest=6000) == 3000


def test_a_longest_input_that_does_not_fit_is_refused_by_its_setting():
    with pytest.raises(SettingError, match="--max-input-tokens 8192: a text of that length does not fit in memory"):
        find(Device(8000), max_input_tokens=8192)


def test_memory_for_no_useful_batch_is_refused():
    with pytest.raises(SettingError, match="--max-batch-tokens: not even 1024 tokens fit in memory"):
        find(Device(1000), max_input_tokens=100)


def test_another_error_ends_the_warm_up():
    with pytest.raises(RuntimeError, match="no memory"):
        find(Device(1, error=RuntimeError))


def test_a_warm_up_runs_one_small_batch():
    device = Device(100)
    warm_up(device, vocab_size=1000)
    assert device.batches == [[64]]
