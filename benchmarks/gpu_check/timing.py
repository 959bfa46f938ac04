"""Clocks and memory of a device."""

import gc
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch

_GIB = 1 << 30
_KIB_PER_GIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A point in time, on the monotonic clock."""

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        return cls(at_s=time.monotonic() + seconds)

    def has_passed(self) -> bool:
        return time.monotonic() >= self.at_s


def time_ms(device: torch.device, work: Callable[[], object]) -> float:
    """Milliseconds from the start of `work` to the end of what it enqueues: by CUDA events, on the CPU by the wall."""
    if device.type != "cuda":
        started_s = time.perf_counter()
        work()
        return (time.perf_counter() - started_s) * 1e3
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def median_ms(device: torch.device, work: Callable[[], object], *, repeats: int = 5) -> float:
    """The median of several runs, after one to warm up."""
    work()
    return statistics.median(time_ms(device, work) for _ in range(repeats))


def wall_ms(device: torch.device, work: Callable[[], object]) -> float:
    """Milliseconds by the wall until the result is there: what the host does before the first kernel counts too."""
    started_s = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started_s) * 1e3


@contextmanager
def peak_memory_gib(device: torch.device) -> Iterator[Callable[[], float]]:
    """The most memory inside of the block, what was there before included; on the CPU the process's since its start."""
    if device.type != "cuda":
        yield lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_GIB
        return
    torch.cuda.reset_peak_memory_stats(device)
    yield lambda: torch.cuda.max_memory_allocated(device) / _GIB


def release_memory(device: torch.device) -> None:
    """Give back what models that are no longer held had."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
