"""A summary as a picture: a bar for each task, with a mark where the other one is."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.summaries.summary import Summary, TaskLine

_INCHES_A_TASK = 0.22
_MARGIN_INCHES = 1.6
_MISSING = "no score"


def plot_summary(summary: Summary, path: Path) -> None:
    """Writes the picture; the name's suffix (.png, .svg, .pdf) says in what form."""
    tasks = sorted(summary.tasks, key=lambda task: (task.type, task.name))
    figure = Figure(figsize=(9, _MARGIN_INCHES + _INCHES_A_TASK * len(tasks)), layout="constrained")
    axes = figure.add_subplot()
    _draw_bars(axes, tasks)
    _draw_marks(axes, tasks, summary.against.label)
    axes.set_yticks(range(len(tasks)), [task.name for task in tasks], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("main score, %")
    axes.set_title(_title(summary), fontsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    with rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(path, dpi=150)


def _draw_bars(axes: Axes, tasks: Sequence[TaskLine]) -> None:
    """One colour for each type. A task without a score has the words in place of a bar."""
    for number, name in enumerate(dict.fromkeys(task.type for task in tasks)):
        places = [place for place, task in enumerate(tasks) if task.type == name]
        axes.barh(places, [tasks[place].score or 0.0 for place in places], color=f"C{number}", alpha=0.7, label=name)
    for place, task in enumerate(tasks):
        if task.score is None:
            axes.annotate(_MISSING, (0, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=6)


def _draw_marks(axes: Axes, tasks: Sequence[TaskLine], label: str) -> None:
    known = [(task.against, place) for place, task in enumerate(tasks) if task.against is not None]
    if known:
        scores, places = zip(*known, strict=True)
        axes.scatter(scores, places, marker="|", color="black", s=60, label=label, zorder=3)


def _title(summary: Summary) -> str:
    mean = summary.means[0]
    score = (
        f"{mean.name} {mean.score:.2f}"
        if mean.score is not None
        else f"INCOMPLETE: {mean.num_there} of {mean.num_all} tasks"
    )
    return f"{summary.model}\n{summary.described}\n{score}"
