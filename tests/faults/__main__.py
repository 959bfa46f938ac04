"""`python -m tests.faults`: play every row, print the table, and write it into the document if asked."""

import argparse
import asyncio
import sys
from pathlib import Path

from rich.console import Console

from tests.faults.checks import Result, failed
from tests.faults.document import write
from tests.faults.play import play
from tests.faults.report import print_table
from tests.faults.rows import ROWS
from tests.faults.stage import Row, Size


def main() -> None:
    options = _options()
    rows = [row for row in ROWS if _is_chosen(row, options)]
    results = [_play(row, options.requests) for row in rows]
    print_table(results)
    if options.write is not None:
        write(options.write, rows, results)
    sys.exit(not all(found.passed for found in results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--requests", type=int, default=5000, help="calls of a row (5000)")
    parser.add_argument("--only", nargs="+", default=[], choices=[row.name for row in ROWS], help="rows to play")
    parser.add_argument("--engine", choices=["echo", "real"], help="only the rows with this engine")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document")
    return parser.parse_args()


def _is_chosen(row: Row, options: argparse.Namespace) -> bool:
    is_engine = options.engine is None or (options.engine == "real") == row.is_real
    return is_engine and (not options.only or row.name in options.only)


def _play(row: Row, num_calls: int) -> Result:
    console = Console(stderr=True)
    with console.status(f"{row.name}: {row.fault}"):
        try:
            found = asyncio.run(play(row, Size(num_calls=num_calls, is_long=True)))
        except Exception as error:  # noqa: BLE001 - the other rows are played all the same
            found = failed(row.name, num_calls, error)
    console.print(f"{row.name}: {'ok' if found.passed else 'FAILED'} in {found.seconds:.0f} s")
    return found


if __name__ == "__main__":
    main()
