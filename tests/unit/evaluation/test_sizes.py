"""How much a task has to read, as far as mteb knows without its data."""

from functools import partial

import mteb
import pytest

from evaluation.protocol.instructions import Instructions
from evaluation.protocol.rules import PlannedInstruction, Protocol
from evaluation.tasks.benchmarks import BENCHMARKS, FOLLOW_IR, MLDR, RERANKED_TYPES, benchmark_tasks
from evaluation.tasks.local_tasks import load
from evaluation.tasks.sizes import embedding_size, pairs_size

NOTHING = PlannedInstruction(query=None, document=None, source="")


@pytest.mark.parametrize("benchmark", [*BENCHMARKS, FOLLOW_IR, MLDR])
def test_every_task_of_every_benchmark_has_a_size_before_its_data_is_there(benchmark):
    instructions = Instructions()
    for task in benchmark_tasks(benchmark):
        plan = instructions.plan(task.metadata, Protocol())
        sizes = [embedding_size(task, plan)]
        sizes += [pairs_size(task, plan, top_k=100)] if task.metadata.type in RERANKED_TYPES else []
        assert all(size and size.num_texts > 0 and size.num_tokens > 0 for size in sizes), task.metadata.name


def test_every_different_text_is_read_once_and_its_instruction_with_it():
    task = mteb.get_task("SciFact")  # 5183 documents of 1499 characters, 300 queries of 90
    plain = embedding_size(task, NOTHING)
    assert plain.num_texts == 5183 + 300
    assert plain.num_tokens == pytest.approx(5183 * 1499 / 4 + 300 * 90 / 4, rel=0.01)
    of_queries = embedding_size(task, PlannedInstruction(query="x" * 83, document=None, source=""))
    assert of_queries.num_tokens - plain.num_tokens == 300 * 25


def test_chinese_has_more_tokens_for_its_characters():
    assert embedding_size(mteb.get_task("CmedqaRetrieval"), NOTHING).num_tokens > 100_000 * 100


def test_a_reranker_reads_the_best_of_each_query_or_the_candidates_that_there_are():
    size = partial(pairs_size, instruction=NOTHING, top_k=100)
    assert size(mteb.get_task("SciFact")).num_texts == 300 * 100
    assert size(mteb.get_task("AskUbuntuDupQuestions")).num_texts == 361 * 20  # two of the queries are alike
    assert size(mteb.get_task("STS12")) is None


def test_only_what_is_evaluated_is_counted():
    english = mteb.get_task("AmazonCounterfactualClassification", hf_subsets=["en"])
    assert (
        embedding_size(english, NOTHING).num_texts
        < embedding_size(mteb.get_task("AmazonCounterfactualClassification"), NOTHING).num_texts
    )


def test_local_data_is_counted_itself(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "abcdefgh"}\n{"_id": "2", "text": "abcdefgh"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "abcd"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    size = embedding_size(load(tmp_path), NOTHING)
    assert (size.num_texts, size.num_tokens) == (2, 3)
