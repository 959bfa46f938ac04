"""What the device can do at most: matrix products and memory copies, on random data."""

from dataclasses import dataclass

import torch

from benchmarks.gpu_check.report import Row
from benchmarks.gpu_check.timing import median_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Measured in this run: the largest rate of the square products, and of a copy, read and written bytes counted."""

    matmul_tflops: float
    bandwidth_gb_s: float


def measure_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    is_gpu = device.type == "cuda"
    widths, products_at_once = ((4096, 8192, 16_384), 10) if is_gpu else ((512, 1024), 2)
    return Peak(
        matmul_tflops=max(_matmul_tflops(device, dtype, width, products_at_once) for width in widths),
        bandwidth_gb_s=_bandwidth_gb_s(device, num_bytes=1 << 30 if is_gpu else 64 << 20),
    )


def peak_row(peak: Peak, dtype_name: str) -> Row:
    text = f"matmul {peak.matmul_tflops:.4g} TFLOP/s, copy {peak.bandwidth_gb_s:.4g} GB/s read and written"
    figures = {"matmul_tflops": peak.matmul_tflops, "bandwidth_gb_s": peak.bandwidth_gb_s}
    return Row(kind="PEAK", name=dtype_name, text=text, figures=figures)


def _matmul_tflops(device: torch.device, dtype: torch.dtype, width: int, products_at_once: int) -> float:
    """Several products between two clock readings, as in a forward pass: a single one runs before the clocks sink."""
    left, right = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)

    def multiply() -> None:
        for _ in range(products_at_once):
            torch.mm(left, right, out=out)

    return products_at_once * 2 * width**3 / median_ms(device, multiply) / 1e9


def _bandwidth_gb_s(device: torch.device, *, num_bytes: int) -> float:
    source = torch.randint(256, (num_bytes,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * num_bytes / median_ms(device, lambda: target.copy_(source)) / 1e6
