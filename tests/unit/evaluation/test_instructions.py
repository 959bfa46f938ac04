"""Where instructions come from, and that every task of the authors' benchmarks has the one that it should."""

import json
from collections import Counter

import mteb
import pytest

from evaluation.errors import EvaluationError
from evaluation.protocol.instructions import FROM_FILE, FROM_LIST, FROM_TASK, FROM_TYPE, Instructions
from evaluation.protocol.rules import SIMILAR_TEXT, Protocol
from evaluation.tasks.benchmarks import BENCHMARKS, FOLLOW_IR, MLDR, benchmark_tasks

SYMMETRIC = {"ArguAna", "CQADupstackGamingRetrieval", "CQADupstackUnixRetrieval"}


def metadata(name):
    return mteb.get_task(name).metadata


@pytest.fixture
def instructions():
    return Instructions()


@pytest.fixture
def file(tmp_path):
    def write(said):
        path = tmp_path / "task_prompts.json"
        path.write_text(said if isinstance(said, str) else json.dumps(said))
        return path

    return write


@pytest.mark.parametrize(
    ("benchmark", "num_listed", "num_tasks"),
    [
        ("MTEB(eng, v2)", 41, 41),
        ("MTEB(cmn, v1)", 28, 31),
        ("MTEB(Code, v1)", 12, 12),
        ("MTEB(Multilingual, v2)", 118, 131),
        (FOLLOW_IR, 3, 3),
    ],
)
def test_the_list_has_so_many_tasks_of_each_benchmark_and_mteb_s_own_prompts_are_for_the_rest(
    instructions, benchmark, num_listed, num_tasks
):
    sources = Counter(instructions.of(task.metadata).source for task in benchmark_tasks(benchmark))
    assert sources == Counter({FROM_LIST: num_listed, FROM_TASK: num_tasks - num_listed})


@pytest.mark.parametrize("benchmark", [*BENCHMARKS, FOLLOW_IR, MLDR])
def test_every_task_of_every_benchmark_has_the_instruction_that_the_authors_rules_give_it(instructions, benchmark):
    for task in benchmark_tasks(benchmark):
        name, kind = task.metadata.name, task.metadata.type
        plan = instructions.plan(task.metadata, Protocol())
        if kind in {"STS", "PairClassification"}:
            assert (plan.query, plan.document) == (SIMILAR_TEXT, SIMILAR_TEXT), name
        else:
            assert plan.query == instructions.of(task.metadata).query, name
            assert plan.query, name
            assert plan.document == (plan.query if kind == "Reranking" or name in SYMMETRIC else None), name
        assert plan.source, name


def test_the_long_documents_have_only_the_prompt_of_their_type(instructions):
    assert instructions.of(metadata("MultiLongDocRetrieval")).source == FROM_TYPE


def test_a_user_s_file_goes_before_the_list(file):
    instructions = Instructions(file({"SciFact": "Find it", "ArguAna": {"query": "Refute", "passage": "Assert"}}))
    assert instructions.of(metadata("SciFact")).query == "Find it"
    assert instructions.of(metadata("SciFact")).source == FROM_FILE
    plan = instructions.plan(metadata("ArguAna"), Protocol())
    assert (plan.query, plan.document) == ("Refute", "Assert")
    assert instructions.of(metadata("NFCorpus")).source == FROM_LIST


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ({"SciFact": 3}, "SciFact"),
        ({"SciFact": {"query": 3}}, "SciFact"),
        ({"SciFact": {"document": "x"}}, "SciFact"),
    ],
)
def test_a_file_that_is_something_else_is_refused_by_name(file, said, why):
    with pytest.raises(EvaluationError, match=why) as refusal:
        Instructions(file(said))
    assert "task_prompts.json" in str(refusal.value)


def test_the_digest_follows_what_is_said(file):
    assert Instructions().digest == Instructions().digest
    assert Instructions(file({"SciFact": "Find it"})).digest != Instructions().digest
    assert Instructions(file({"SciFact": "Find it"})).digest != Instructions(file({"SciFact": "Find them"})).digest
