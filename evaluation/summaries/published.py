"""The scores that the authors published, in percent: arXiv 2506.05176 and the model cards of the six models.

Rerankers are reported over the top 100 of Qwen3-Embedding-0.6B, which is the "first stage" there. MTEB-R, CMTEB-R and
MMTEB-R are the retrieval tasks of the benchmarks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from evaluation.tasks.benchmarks import BENCHMARKS, FOLLOW_IR, MLDR

ENGLISH, CHINESE, CODE, MULTILINGUAL = BENCHMARKS
SOURCE = "arXiv 2506.05176 and the model cards"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedMeans:
    """A model's means on a benchmark; None is what was not published."""

    by_task: float | None = None
    by_type: float | None = None
    retrieval: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """All that was published of a model: means by benchmark, and scores of single tasks."""

    benchmarks: Mapping[str, PublishedMeans]
    tasks: Mapping[str, float] = field(default_factory=dict)


def published(model: str) -> PublishedModel | None:
    """What was published of a model, known by the last part of its id; None of others."""
    return PUBLISHED.get(model.rpartition("/")[2])


def _of_retrieval(mean: float) -> PublishedMeans:
    """Of a benchmark whose tasks are all retrieval, one mean is all three."""
    return PublishedMeans(by_task=mean, by_type=mean, retrieval=mean)


def _means(by_task: float, by_type: float, retrieval: float | None = None) -> PublishedMeans:
    return PublishedMeans(by_task=by_task, by_type=by_type, retrieval=retrieval)


def _reranker(
    *, english: float, chinese: float, multilingual: float, long: float, code: float, follow_ir: float
) -> dict[str, PublishedMeans]:
    """A line of the rerankers' table."""
    return {
        ENGLISH: PublishedMeans(retrieval=english),
        CHINESE: PublishedMeans(retrieval=chinese),
        MULTILINGUAL: PublishedMeans(retrieval=multilingual),
        MLDR: _of_retrieval(long),
        CODE: _of_retrieval(code),
        FOLLOW_IR: PublishedMeans(by_task=follow_ir),
    }


_CODE_TASKS = {  # Qwen3-Embedding-0.6B, and Qwen3-Reranker-0.6B over its top 100
    "AppsRetrieval": (75.34, 69.43),
    "COIRCodeSearchNetRetrieval": (84.69, 85.09),
    "CodeEditSearchRetrieval": (64.42, 72.37),
    "CodeFeedbackMT": (90.82, 83.83),
    "CodeFeedbackST": (86.39, 78.05),
    "CodeSearchNetCCRetrieval": (91.72, 94.76),
    "CodeSearchNetRetrieval": (91.01, 88.8),
    "CodeTransOceanContest": (86.05, 84.69),
    "CodeTransOceanDL": (31.36, 33.94),
    "CosQA": (36.48, 36.83),
    "StackOverflowQA": (89.99, 93.24),
    "SyntheticText2SQL": (76.74, 62.48),
}

PUBLISHED = {
    "Qwen3-Embedding-0.6B": PublishedModel(
        benchmarks={
            ENGLISH: _means(70.70, 64.88, retrieval=61.82),
            CHINESE: _means(66.33, 67.44, retrieval=71.02),
            CODE: _of_retrieval(75.41),
            MULTILINGUAL: _means(64.33, 56.00, retrieval=64.64),
            MLDR: _of_retrieval(50.26),
            FOLLOW_IR: PublishedMeans(by_task=5.09),
        },
        tasks={"SciFact": 69.72, "TERRa": 60.68} | {name: embedding for name, (embedding, _) in _CODE_TASKS.items()},
    ),
    "Qwen3-Embedding-4B": PublishedModel(
        benchmarks={
            ENGLISH: _means(74.60, 68.09),
            CHINESE: _means(72.26, 73.50),
            CODE: _of_retrieval(80.06),
            MULTILINGUAL: _means(69.45, 60.86),
        },
    ),
    "Qwen3-Embedding-8B": PublishedModel(
        benchmarks={
            ENGLISH: _means(75.22, 68.70),
            CHINESE: _means(73.83, 75.00),
            CODE: _of_retrieval(80.68),
            MULTILINGUAL: _means(70.58, 61.69),
        },
    ),
    "Qwen3-Reranker-0.6B": PublishedModel(
        benchmarks=_reranker(english=65.80, chinese=71.31, multilingual=66.36, long=67.28, code=73.42, follow_ir=5.41),
        tasks={name: reranker for name, (_, reranker) in _CODE_TASKS.items()},
    ),
    "Qwen3-Reranker-4B": PublishedModel(
        benchmarks=_reranker(english=69.76, chinese=75.94, multilingual=72.74, long=69.97, code=81.20, follow_ir=14.84),
    ),
    "Qwen3-Reranker-8B": PublishedModel(
        benchmarks=_reranker(english=69.02, chinese=77.45, multilingual=72.94, long=70.19, code=81.22, follow_ir=8.05),
    ),
}
