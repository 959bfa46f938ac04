"""Where a run keeps what, below one results folder.

    results/NAME/REVISION/TASK.json                       scores, in mteb's own layout
    predictions/NAME/REVISION/TASK_predictions.json       an embedding run's best 1000 documents of each query
    runs/NAME/REVISION/                                   run cards
    runs/NAME/REVISION/counts/TASK.json                   what a task read; it is there once the task is finished
    rows/NAME/REVISION/                                   answers of tasks under way, removed when they are finished

NAME is `organisation__model`, REVISION is Settings.run_revision, which no other configuration has.
"""

from dataclasses import dataclass
from pathlib import Path

NO_ORGANISATION = "qwen3-serve"


def full_name(name: str) -> str:
    """The name as mteb asks for it: `organisation/model`."""
    return name if "/" in name else f"{NO_ORGANISATION}/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolders:
    """Those of one run."""

    results: Path
    predictions: Path
    cards: Path
    rows: Path

    def result(self, task: str) -> Path:
        return self.results / f"{task}.json"

    def prediction(self, task: str) -> Path:
        return self.predictions / f"{task}_predictions.json"

    def counts(self, task: str) -> Path:
        return self.cards / "counts" / f"{task}.json"


@dataclass(frozen=True, slots=True)
class Folders:
    """A results folder."""

    root: Path

    def run(self, name: str, run_revision: str) -> RunFolders:
        run = Path(full_name(name).replace("/", "__").replace(" ", "_"), run_revision)
        return RunFolders(
            results=self.root / "results" / run,
            predictions=self.root / "predictions" / run,
            cards=self.root / "runs" / run,
            rows=self.root / "rows" / run,
        )


def results_beside(predictions: Path) -> Path:
    """The results of the run whose predictions are in this folder."""
    return predictions.parents[2] / "results" / predictions.parent.name / predictions.name


def replace_text(path: Path, text: str) -> None:
    """Whoever reads meanwhile, or after a kill, finds the old text whole or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, "utf-8")
    draft.replace(path)
