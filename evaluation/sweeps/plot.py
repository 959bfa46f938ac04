"""A sweep as a picture: scores against the bytes of a vector, and against tokens per second."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Literal, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evaluation.sweeps.report import names
from evaluation.sweeps.sweep import SweepRow

_COLOURS = tuple(f"C{number}" for number in range(10))
_MARKERS = ("o", "s", "^", "D")
_Line = Literal["-", "--", ":", "-."]
_LINES: tuple[_Line, ...] = ("-", "--", ":", "-.")
_OF_A_PASS = ("model", "dtype", "engine", "prefix cache", "instructions")

_Look = TypeVar("_Look")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What has a colour, a marker and a kind of line."""

    of_a_pass: str
    encoding: str
    rescore: str


def plot_sweep(rows: Sequence[SweepRow], path: Path) -> None:
    """Writes the picture; the name's suffix (.png, .svg, .pdf) says in what form. Rows without a score are left out.

    A colour is a service with or without instructions, a marker an encoding, a kind of line a way of rescoring. A
    line joins the widths.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_bytes, by_speed = figure.subplots(1, 2, sharey=True)
    points = [(_kind(row), row, row.score * 100) for row in rows if row.score is not None]
    kinds = list(dict.fromkeys(kind for kind, _, _ in points))
    colours = _looks((kind.of_a_pass for kind in kinds), _COLOURS)
    markers = _looks((kind.encoding for kind in kinds), _MARKERS)
    lines = _looks((kind.rescore for kind in kinds), _LINES)
    for kind in kinds:
        of_kind = sorted((row.bytes_per_vector, row.tokens_per_s, score) for its, row, score in points if its == kind)
        num_bytes, speeds, scores = zip(*of_kind, strict=True)
        colour, marker = colours[kind.of_a_pass], markers[kind.encoding]
        by_bytes.plot(num_bytes, scores, color=colour, marker=marker, markersize=5, linestyle=lines[kind.rescore])
        by_speed.plot(speeds, scores, color=colour, marker=marker, markersize=5, linestyle="")
    _name_axes(by_bytes, by_speed)
    by_speed.legend(handles=[*_keys(colours, markers, lines)], loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)
    figure.savefig(path, dpi=120)


def _keys(colours: Mapping[str, str], markers: Mapping[str, str], lines: Mapping[str, _Line]) -> Iterator[Line2D]:
    """What each colour, marker and kind of line stands for."""
    yield from (Line2D([], [], color=colour, label=name) for name, colour in colours.items())
    for name, marker in markers.items():
        yield Line2D([], [], color="gray", linestyle="", marker=marker, label=name)
    for name, line in lines.items():
        yield Line2D([], [], color="gray", linestyle=line, label=f"rescore {name}")


def _kind(row: SweepRow) -> _Kind:
    named = names(row)
    of_a_pass = (f"{name} {named[name]}" if named[name] in ("on", "off") else named[name] for name in _OF_A_PASS)
    return _Kind(", ".join(of_a_pass), named["encoding"], named["rescore"])


def _looks(all_names: Iterable[str], looks: Sequence[_Look]) -> dict[str, _Look]:
    """A look for each name, again from the first one where there are more names than looks."""
    return dict(zip(dict.fromkeys(all_names), cycle(looks), strict=False))


def _name_axes(by_bytes: Axes, by_speed: Axes) -> None:
    by_bytes.set_xscale("log", base=2)
    by_bytes.xaxis.set_major_formatter("{x:g}")
    by_bytes.set_xlabel("bytes per vector")
    by_bytes.set_ylabel("mean score, times 100")
    by_speed.set_xlabel("tokens per second")
