"""What a model's first batch costs with and without kernels that are compiled for it."""

from collections.abc import Iterator
from functools import partial

from benchmarks.gpu_check.backends import Backends
from benchmarks.gpu_check.models import Weights, build, config_of, random_weights
from benchmarks.gpu_check.report import Report, Row
from benchmarks.gpu_check.timing import wall_ms
from benchmarks.gpu_check.workloads import RandomIds
from worker.model.choices import KernelsName
from worker.model.config import Qwen3Config
from worker.packing import pack

_NUM_LAYERS = 2  # kernels are compiled once for all layers
_NUM_TOKENS = 64  # as the worker's first batch


def check_startup(report: Report, size: str, backends: Backends) -> None:
    """A row for each of the kernels: PyTorch's own first, which load what all of them need."""
    report.attempt("STARTUP", size, partial(_check, size, backends))


def _check(size: str, backends: Backends) -> Iterator[Row]:
    config = config_of(size, num_layers=_NUM_LAYERS)
    weights = random_weights(config, backends.placement.device, backends.placement.dtype)
    for kernels in reversed(backends.kernels):
        first_ms, second_ms = (_start_ms(config, weights, backends, kernels) for _ in range(2))
        yield Row(
            kind="STARTUP",
            name=f"{size} {kernels}",
            text=f"first batch {first_ms:.4g} ms, second {second_ms:.4g} ms",
            figures={"size": size, "kernels": kernels, "first_ms": first_ms, "second_ms": second_ms},
        )


def _start_ms(config: Qwen3Config, weights: Weights, backends: Backends, kernels: KernelsName) -> float:
    """Laying the weights out as the kernels want them, and one small batch."""
    placement, attention = backends.placement, next(iter(backends.attentions.values()))
    batch = pack(RandomIds(config.vocab_size, seed=0).texts([_NUM_TOKENS]), placement.device)
    return wall_ms(placement.device, lambda: build(config, weights, kernels, attention).forward(batch))
