"""`python -m tests.fuzz`: every rpc of a real gateway is sent mutated, made-up and random messages."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fuzz.run import Report, Size, fuzz


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="calls of each rpc (20000)")
    parser.add_argument("--connections", type=int, default=2_000, help="connections with random frames (2000)")
    parser.add_argument("--seed", type=int, default=0, help="what is sent follows from it (0)")
    options = parser.parse_args()
    console, started = Console(width=120), time.monotonic()
    size = Size(num_messages=options.messages, num_random=options.connections)
    with tempfile.TemporaryDirectory(prefix="q3f") as folder:
        report = fuzz(size, seed=options.seed, folder=Path(folder), say=console.print)
    _show(report, console)
    console.print(f"{time.monotonic() - started:.0f} s")
    sys.exit(bool(report.found.num_faults or report.problems))


def _show(report: Report, console: Console) -> None:
    found = report.found
    table = Table("rpc", "status", "reason", "calls")
    for (rpc, code, reason), number in sorted(found.endings.items()):
        table.add_row(rpc, code, reason, f"{number:,}")
    console.print(table)
    ends = ", ".join(f"{ending}: {number}" for ending, number in report.connections.most_common())
    console.print(f"odd connections: {ends}")
    console.print(f"{found.num_calls:,} calls, {found.num_messages:,} messages, the slowest {found.slowest_s:.2f} s")
    console.print(f"RSS after each round, MiB: {', '.join(f'{size:.0f}' for size in report.rss_mib)}")
    console.print(f"faults: {found.num_faults}", *found.faults, *report.problems, sep="\n", markup=False)


if __name__ == "__main__":
    main()
