"""The figures of a run of the engines, drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.engine_report import Report, Row

mpl.use("Agg")


def draw(report: Report, path: Path) -> None:
    """A panel a dtype, a group of bars a workload, a bar an engine: its tokens per CPU second."""
    figure, panels = plt.subplots(len(report.peaks), 1, figsize=(14, 4.5 * len(report.peaks)), squeeze=False)
    for panel, dtype in zip(panels[:, 0], report.peaks, strict=True):
        _draw_dtype(panel, [row for row in report.rows if row.dtype == dtype])
        panel.set_title(f"{dtype}, layers of the 0.6B shape. {report.machine}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _draw_dtype(panel: Any, rows: Sequence[Row]) -> None:
    workloads = list(dict.fromkeys(row.workload for row in rows))
    engines = list(dict.fromkeys(row.engine for row in rows))
    width = 0.9 / len(engines)
    for place, engine in enumerate(engines):
        own = [row for row in rows if row.engine == engine]
        places = [workloads.index(row.workload) + place * width for row in own]
        panel.bar(places, [row.num_tokens / row.median_cpu_s for row in own], width=width, label=engine)
    panel.set_xticks([place + 0.45 for place in range(len(workloads))], workloads)
    panel.set_ylabel("tokens per CPU second")
    panel.legend(ncols=5, fontsize="small")
