"""What of a task belongs to a run or to a benchmark, and how it is scored."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Self

from mteb.abstasks import AbsTask


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """A task. Its score is the mean of `metric` over all subsets in all splits; languages are as eng-Latn."""

    name: str
    type: str
    metric: str
    splits: tuple[str, ...]
    subsets: Mapping[str, tuple[str, ...]]  # the languages of each

    @classmethod
    def of(cls, task: AbsTask) -> Self:
        """As it is selected: a benchmark may have only some of a task's subsets and splits."""
        return cls(
            name=task.metadata.name,
            type=task.metadata.type,
            metric=task.metadata.main_score,
            splits=tuple(task.eval_splits),
            subsets=_subsets(task),
        )


def _subsets(task: AbsTask) -> dict[str, tuple[str, ...]]:
    languages = task.metadata.hf_subsets_to_langscripts
    if task.is_aggregate:  # one score stands for all its tasks
        return {"default": tuple(dict.fromkeys(chain.from_iterable(languages.values())))}
    return {name: tuple(languages[name]) for name in task.hf_subsets}
