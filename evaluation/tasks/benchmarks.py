"""Which tasks: of mteb's benchmarks, or by their names."""

from collections.abc import Iterable

import mteb
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate

from evaluation.errors import EvaluationError

BENCHMARKS = ("MTEB(eng, v2)", "MTEB(cmn, v1)", "MTEB(Code, v1)", "MTEB(Multilingual, v2)")
# What the authors report rerankers on besides those. MLDR is no benchmark of mteb's: its test split is meant.
FOLLOW_IR = "FollowIR"
MLDR = "MLDR"
_MLDR_TASK = "MultiLongDocRetrieval"
# Tasks of these types have candidates to rerank, their own or those of the first stage.
RERANKED_TYPES = ("Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking")


def benchmark_tasks(name: str) -> list[AbsTask]:
    """The tasks of MLDR or of any benchmark of mteb. Raises EvaluationError for another name."""
    if name == MLDR:
        return [mteb.get_task(_MLDR_TASK, eval_splits=["test"])]
    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError as error:
        known = ", ".join((*BENCHMARKS, FOLLOW_IR, MLDR))
        raise EvaluationError(f"there is no benchmark {name!r}; the authors' are {known}") from error


def named_tasks(names: Iterable[str]) -> list[AbsTask]:
    """The tasks of mteb of these names. Raises EvaluationError for one that it does not have."""
    try:
        return [mteb.get_task(name) for name in names]
    except KeyError as error:
        raise EvaluationError(str(error.args[0])) from error


def parts_of(task: AbsTask) -> list[AbsTask]:
    """The tasks whose scores make up that of the task, such as those of CQADupstackRetrieval, or itself."""
    return list(task.metadata.tasks) if isinstance(task, AbsTaskAggregate) else [task]
