"""The figures of a run of the engines, and their table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

OURS = "packed"
PLAIN = "packed, plain plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One engine on one workload in one dtype. Seconds are of each turn; `cosine` is the least to the oracle's."""

    workload: str
    dtype: str
    engine: str
    num_tokens: int
    cpu_s: Sequence[float]
    wall_s: Sequence[float]
    cosine: float

    @property
    def median_cpu_s(self) -> float:
        return statistics.median(self.cpu_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run. FLOPs by workload are those that ours executes; peaks are FLOPs per CPU second by dtype."""

    machine: str
    rows: Sequence[Row]
    flops: Mapping[str, int]
    plain_flops: Mapping[str, int]
    peaks: Mapping[str, Sequence[float]]

    def row(self, workload: str, dtype: str, engine: str) -> Row:
        return next(row for row in self.rows if (row.workload, row.dtype, row.engine) == (workload, dtype, engine))

    def peak(self, dtype: str) -> float:
        return statistics.median(self.peaks[dtype])

    def share_of_peak(self, row: Row) -> float | None:
        """FLOPs executed over what the peak would have executed; known of our own engine alone."""
        flops = {OURS: self.flops, PLAIN: self.plain_flops}.get(row.engine)
        return None if flops is None else flops[row.workload] / row.median_cpu_s / self.peak(row.dtype)


def show(report: Report) -> None:
    for dtype in report.peaks:
        rows = [row for row in report.rows if row.dtype == dtype]
        table = Table("workload", "engine", "tokens/CPU s", "CPU s", "from-to", "of peak", "ours is faster by")
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            table.add_row(*_cells(report, row), end_section=following is None or following.workload != row.workload)
        Console(width=130).print(f"{dtype}: matmul peak {report.peak(dtype) / 1e9:.0f} GFLOP per CPU second", table)


def _cells(report: Report, row: Row) -> Sequence[str]:
    share = report.share_of_peak(row)
    ours = report.row(row.workload, row.dtype, OURS)
    return (
        row.workload,
        row.engine,
        f"{row.num_tokens / row.median_cpu_s:.0f}",
        f"{row.median_cpu_s:.3f}",
        f"{min(row.cpu_s):.3f}-{max(row.cpu_s):.3f}",
        "" if share is None else f"{share:.0%}",
        f"{row.median_cpu_s / ours.median_cpu_s:.2f}",
    )
