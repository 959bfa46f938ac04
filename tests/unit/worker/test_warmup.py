"""What warm-up finds out of a device's memory. The device is one of tests that holds so many tokens at once."""

import pytest
import torch
from structlog.testing import capture_logs

from runtime.errors import SettingError
from worker.runner import RunnerStats
from worker.warmup import check_longest_input, find_budget, reserved, warm_up


class Device:
    """Holds so many tokens of texts that share nothing, and gathers four times as many of those that do."""

    engine = attention = kernels = "device"

    def __init__(self, num_tokens, error=None):
        self.num_tokens = num_tokens
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.batches = []

    def start(self, sequences, prefixes=()):
        self.batches.append([len(ids) for ids in sequences])
        shares = len(sequences) > 1 and sequences[0][:8] == sequences[1][:8]
        if sum(map(len, sequences)) > self.num_tokens * (4 if shares else 1):
            raise self.error
        return lambda: torch.zeros(len(sequences), 4)

    def release_memory(self):
        pass

    def count_computed(self, sequences):
        return 0

    def stats(self):
        return RunnerStats(num_input_tokens=0, num_computed_tokens=0)


def find(device, *, largest=32_768):
    return find_budget(device, largest=largest, vocab_size=1000)


def test_a_batch_that_fits_is_the_budget():
    device = Device(80_000)
    assert find(device) == 32_768
    assert device.batches == [[512] * 64, [512] * 512], "texts apart, and eight times as many that share"


def test_the_budget_is_halved_until_it_fits():
    with capture_logs() as logs:
        assert find(Device(40_000)) == 16_384, "it fits apart, but not what is gathered"
    assert [line["max_batch_tokens"] for line in logs] == [32_768]
    assert find(Device(7000), largest=6000) == 3000


def test_memory_for_no_useful_batch_is_refused():
    with pytest.raises(SettingError, match="--max-batch-tokens: not even 1024 tokens fit in memory"):
        find(Device(1000))


def test_a_longest_input_that_does_not_fit_is_refused_by_its_setting():
    check_longest_input(Device(8192), max_input_tokens=8192, vocab_size=1000)
    with pytest.raises(SettingError, match="--max-input-tokens 8192: a text of that length does not fit in memory"):
        check_longest_input(Device(8000), max_input_tokens=8192, vocab_size=1000)


def test_another_error_ends_the_warm_up():
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        find(Device(1, RuntimeError("an illegal memory access")))


def test_a_warm_up_runs_one_small_batch():
    device = Device(100)
    warm_up(device, vocab_size=1000)
    assert device.batches == [[64]]


def test_memory_that_the_cache_will_take_is_held_meanwhile_or_refused_by_its_setting():
    with reserved(1024, torch.device("cpu")):
        pass
    with pytest.raises(SettingError, match="--prefix-cache-mib"), reserved(1 << 60, torch.device("cpu")):
        pass
