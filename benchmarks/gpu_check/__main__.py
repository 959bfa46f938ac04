"""`python -m benchmarks.gpu_check`: in one call, whether this machine's back-ends are right and how fast they are.

It prints lines that begin with DEVICE, BACKENDS, PEAK, STARTUP, PARITY, SPEED, PROFILE (where a target of speed is
missed), SKIPPED (what could not be done here, or not in time) and at last RESULT; `--json` writes every figure. The
exit code is 1 where a back-end is wrong or fails, 2 where all are right and a GPU misses a target of speed, else 0.

It takes under ten minutes on a GPU, and on a CPU, where everything is small, under one. Weights are random and made on
the device: no checkpoint, network or Redis is needed, only torch, numpy, safetensors, tokenizers and pydantic-settings
(and Triton on a GPU); transformers is compared with where it is installed. Nothing has to be installed of this project:

    python -m benchmarks.gpu_check --json gpu.json      # in its root folder
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from unittest.mock import patch

import torch

from benchmarks.gpu_check.attention_parity import check_attention
from benchmarks.gpu_check.backends import DTYPES, Backends, backend_row, device_row, find_backends
from benchmarks.gpu_check.model_parity import check_models
from benchmarks.gpu_check.models import SHAPES, config_of, random_weights
from benchmarks.gpu_check.peak import measure_peak, peak_row
from benchmarks.gpu_check.report import Report, Row
from benchmarks.gpu_check.speed_check import SpeedPlan, check_speed
from benchmarks.gpu_check.startup import check_startup
from benchmarks.gpu_check.timing import Deadline, release_memory
from benchmarks.gpu_check.twin import why_no_twin
from benchmarks.gpu_check.workloads import other_workloads, target_workloads
from runtime.errors import SettingError
from worker.placement import Placement

_CPU_LAYERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is done: `num_layers` for speed, None for all; `num_tokens` of the longest text and of a full batch."""

    sizes: Sequence[str]
    num_layers: int | None
    num_tokens: int

    @classmethod
    def choose(cls, device: torch.device, sizes: Sequence[str] | None, num_layers: int | None) -> Self:
        if device.type == "cuda":
            return cls(sizes=sizes or ("0.6B", "4B", "8B"), num_layers=num_layers, num_tokens=32_768)
        return cls(sizes=sizes or ("tiny",), num_layers=num_layers or _CPU_LAYERS, num_tokens=1024)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    deadline = Deadline.after(options.minutes * 60)
    try:
        placement = Placement.choose(options.device, options.dtype)
    except SettingError as error:
        parser.error(str(error))
    extent = Extent.choose(placement.device, options.sizes, options.layers)
    report = Report()
    with _no_compiled_kernels(), _on(placement.device):
        check(report, placement, extent, deadline)
    return report.finish(is_gpu=placement.device.type == "cuda", json_path=options.json)


def check(report: Report, placement: Placement, extent: Extent, deadline: Deadline) -> None:
    """Everything, in the order of what later parts rest on: speed comes last, and is cut off at the deadline."""
    report.add(device_row(placement.device))
    all_backends = {name: find_backends(placement.device, name) for name in DTYPES}
    for found in all_backends.values():
        report.add(backend_row(found))
    backends = all_backends[placement.dtype_name]
    peak = measure_peak(placement.device, placement.dtype)
    report.add(peak_row(peak, placement.dtype_name))
    has_twin = _try_twin(report, placement)
    for size in extent.sizes:
        check_startup(report, size, backends)
    _check_parity(report, extent, tuple(all_backends.values()), has_twin=has_twin)
    # What has a target comes first, for every size.
    for workloads in (target_workloads(extent.num_tokens), other_workloads(extent.num_tokens)):
        plan = SpeedPlan(
            workloads=workloads,
            num_layers=extent.num_layers,
            peak_tflops=peak.matmul_tflops,
            has_twin=has_twin,
            deadline=deadline,
        )
        for size in extent.sizes:
            check_speed(report, size, plan, backends)
            release_memory(placement.device)


def _try_twin(report: Report, placement: Placement) -> bool:
    config = config_of("tiny")
    reason = why_no_twin(config, random_weights(config, placement.device, placement.dtype))
    if reason:
        report.add(Row(kind="SKIPPED", name="transformers", text=reason))
    return not reason


def _check_parity(report: Report, extent: Extent, all_backends: Sequence[Backends], *, has_twin: bool) -> None:
    for backends in all_backends:
        check_attention(report, backends, max_keys=extent.num_tokens)
        release_memory(backends.placement.device)
    for size in extent.sizes:
        check_models(report, size, all_backends, has_twin=has_twin)
        release_memory(all_backends[0].placement.device)


@contextmanager
def _no_compiled_kernels() -> Iterator[None]:
    """Triton keeps what it compiled in the user's home; a first start has to be measured."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {"TRITON_CACHE_DIR": folder}):
        yield


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Make it the current device, whose streams and events are used where none is named."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument("--dtype", default="auto", choices=["auto", *DTYPES], help="for speed; parity has all (auto)")
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), help="0.6B 4B 8B on a GPU, tiny on a CPU")
    parser.add_argument("--layers", type=int, help="of the models that are timed: all on a GPU, 2 on a CPU")
    parser.add_argument("--minutes", type=float, default=9.0, help="after these no speed is measured any more (9)")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
