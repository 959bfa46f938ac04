"""Where a batch's time goes: to products, attention and other kernels, and to none; and the longest kernels by name."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_check.flops import Flops
from benchmarks.gpu_check.report import Row
from benchmarks.gpu_check.timing import time_ms

_NUM_SHOWN = 10
_NAME_LENGTH = 90
# What kernels' names hold, tried in this order: an attention kernel may name the library that it is made with.
_FAMILIES = {
    "attention": ("flash", "fmha", "attention", "attn"),
    "products": ("gemm", "cublas", "nvjet", "cutlass", "xmma", "linear", "aten::mm", "aten::addmm"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """All runs of one kernel; on the CPU, of one operator without those that it calls."""

    name: str
    num_runs: int
    total_ms: float

    @property
    def family(self) -> str:
        name = self.name.lower()
        return next((family for family, parts in _FAMILIES.items() if any(part in name for part in parts)), "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One run, `total_ms` from its start to its end; the kernels with the most time first."""

    total_ms: float
    kernels: Sequence[KernelTime]

    def family_ms(self, family: str) -> float:
        return sum(kernel.total_ms for kernel in self.kernels if kernel.family == family)


def take_profile(device: torch.device, work: Callable[[], object]) -> Profile:
    is_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if is_gpu else ProfilerActivity.CPU]) as profiler:
        total_ms = time_ms(device, work)
    kernels = [
        KernelTime(
            name=event.key,
            num_runs=event.count,
            total_ms=(event.self_device_time_total if is_gpu else event.self_cpu_time_total) / 1e3,
        )
        for event in profiler.key_averages()
        if not is_gpu or event.device_type.name == "CUDA"
    ]
    return Profile(total_ms=total_ms, kernels=sorted(kernels, key=lambda kernel: -kernel.total_ms))


def profile_rows(name: str, found: Profile, flops: Flops, *, peak_tflops: float) -> Iterator[Row]:
    """How near to the peak products and attention ran, what the rest took, and the longest kernels."""
    times_ms = {family: found.family_ms(family) for family in (*_FAMILIES, "other")}
    times_ms["none"] = max(found.total_ms - sum(times_ms.values()), 0.0)
    counted = {"products": flops.products, "attention": flops.attention}
    parts = (_family_text(family, ms, counted.get(family), peak_tflops) for family, ms in times_ms.items())
    text = f"{found.total_ms:.4g} ms: " + ", ".join(parts)
    yield Row(kind="PROFILE", name=name, text=text, figures={"total_ms": found.total_ms, "families_ms": times_ms})
    for kernel in found.kernels[:_NUM_SHOWN]:
        yield _kernel_row(name, kernel, found.total_ms)


def _family_text(family: str, total_ms: float, flops: int | None, peak_tflops: float) -> str:
    text = f"{family} {total_ms:.4g} ms"
    if flops is None or not total_ms:
        return text
    return f"{text} ({flops / total_ms / 1e9 / peak_tflops:.1%} of the peak)"


def _kernel_row(name: str, kernel: KernelTime, total_ms: float) -> Row:
    share = kernel.total_ms / total_ms
    text = f"{share:.1%}, {kernel.total_ms:.4g} ms, {kernel.num_runs} x {kernel.name[:_NAME_LENGTH]}"
    figures = {"kernel": kernel.name, "num_runs": kernel.num_runs, "total_ms": kernel.total_ms}
    return Row(kind="PROFILE", name=name, text=text, figures=figures)
