from statistics import fmean

import mteb
import pytest

from evaluation.summaries.published import CODE, PUBLISHED, published
from evaluation.tasks.benchmarks import benchmark_tasks

EMBEDDING_06B, RERANKER_06B = PUBLISHED["Qwen3-Embedding-0.6B"], PUBLISHED["Qwen3-Reranker-0.6B"]


@pytest.mark.parametrize("model", ["Qwen/Qwen3-Embedding-4B", "Qwen3-Embedding-4B", "/models/Qwen3-Embedding-4B"])
def test_a_model_is_known_by_the_last_part_of_its_id(model):
    assert published(model) is PUBLISHED["Qwen3-Embedding-4B"]


def test_of_another_model_nothing_is_published():
    assert published("mine/Qwen3-Embedding-4B-tuned") is None


@pytest.mark.parametrize("model", PUBLISHED)
def test_scores_are_of_benchmarks_and_tasks_that_there_are(model):
    assert all(benchmark_tasks(benchmark) for benchmark in PUBLISHED[model].benchmarks)
    assert all(mteb.get_task(task) for task in PUBLISHED[model].tasks)


def test_the_code_tasks_are_those_of_the_benchmark():
    names = {task.metadata.name for task in benchmark_tasks(CODE)}
    assert names == EMBEDDING_06B.tasks.keys() - {"SciFact", "TERRa"} == RERANKER_06B.tasks.keys()


def test_the_embedding_models_code_scores_come_to_the_mean_that_is_published():
    tasks = [EMBEDDING_06B.tasks[name] for name in RERANKER_06B.tasks]
    assert fmean(tasks) == pytest.approx(EMBEDDING_06B.benchmarks[CODE].by_task, abs=0.01)


def test_the_rerankers_code_scores_do_not_come_to_it_by_a_fifth_of_a_point():
    """Both are published; docs/evaluation.md says so, since a faithful run cannot meet both."""
    assert round(fmean(RERANKER_06B.tasks.values()), 2) == 73.63
    assert RERANKER_06B.benchmarks[CODE].by_task == 73.42
