"""What works on this machine, and why the rest does not."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

import torch

from benchmarks.gpu_check.report import Row
from runtime.errors import SettingError
from worker.model.attention import Attention, select_attention
from worker.model.choices import AttentionName, KernelsName
from worker.model.kernels import select_kernels
from worker.placement import Placement

DTYPES = ("bfloat16", "float16", "float32")
_GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """What works for one device and dtype, the fastest first; for what does not, the reason."""

    placement: Placement
    attentions: dict[AttentionName, Attention]
    kernels: tuple[KernelsName, ...]
    absent: dict[str, str]


def find_backends(device: torch.device, dtype_name: str) -> Backends:
    placement = Placement(device=device, dtype_name=dtype_name)
    attentions, no_attention = _try_each(
        get_args(AttentionName), lambda name: select_attention(device, placement.dtype, name)[1]
    )
    kernels, no_kernels = _try_each(get_args(KernelsName), lambda name: select_kernels(device, placement.dtype, name))
    return Backends(
        placement=placement, attentions=attentions, kernels=tuple(kernels), absent={**no_attention, **no_kernels}
    )


def _try_each(names: Sequence[Any], select: Callable[[Any], Any]) -> tuple[dict[Any, Any], dict[str, str]]:
    found, absent = {}, {}
    for name in names:
        try:
            found[name] = select(name)
        except (SettingError, ImportError, RuntimeError) as error:  # not wanted here, or broken on this machine
            absent[name] = str(error)
    return found, absent


def backend_row(backends: Backends) -> Row:
    attentions, kernels = list(backends.attentions), list(backends.kernels)
    parts = (f"attention {' '.join(attentions)}", f"kernels {' '.join(kernels)}", *backends.absent.values())
    figures = {"attentions": attentions, "kernels": kernels, "absent": backends.absent}
    return Row(kind="BACKENDS", name=backends.placement.dtype_name, text="; ".join(parts), figures=figures)


def device_row(device: torch.device) -> Row:
    """The hardware, and the versions that decide what it does."""
    name, text = _describe_gpu(device) if device.type == "cuda" else _describe_cpu()
    versions = {"python": platform.python_version(), **dict(_versions())}
    text += ", " + ", ".join(f"{library} {number}" for library, number in versions.items())
    return Row(kind="DEVICE", name=name, text=text, figures={"versions": versions})


def _describe_gpu(device: torch.device) -> tuple[str, str]:
    found = torch.cuda.get_device_properties(device)
    parts = (
        f"{found.total_memory / _GIB:.1f} GiB",
        f"{found.multi_processor_count} multiprocessors",
        f"compute capability {found.major}.{found.minor}",
        f"CUDA {torch.version.cuda}",
    )
    return found.name, ", ".join(parts)


def _describe_cpu() -> tuple[str, str]:
    return f"CPU {platform.machine()}", f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def _versions() -> Iterator[tuple[str, str]]:
    for library in ("torch", "triton", "transformers", "flash-attn"):
        try:
            yield library, version(library)
        except PackageNotFoundError:
            yield library, "absent"
