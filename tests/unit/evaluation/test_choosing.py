import pytest

from evaluation.errors import EvaluationError
from evaluation.tasks.choosing import choose_tasks
from tests.support.retrieval_set import write_retrieval_set


def test_a_benchmarks_tasks_then_named_ones_then_those_in_folders(tmp_path):
    folder = write_retrieval_set(tmp_path / "own", num_queries=2, num_documents=4, num_answers=2, seed=0, name="own")
    chosen = choose_tasks("FollowIR", ["SciFact, NFCorpus", "TERRa"], [folder])
    assert [task.metadata.name for task in chosen[-4:]] == ["SciFact", "NFCorpus", "TERRa", "own"]
    assert len(chosen) == 3 + 4


def test_a_task_that_is_named_twice_is_refused():
    with pytest.raises(EvaluationError, match=r"^named twice: Core17InstructionRetrieval, SciFact$"):
        choose_tasks("FollowIR", ["SciFact", "Core17InstructionRetrieval", "SciFact"], None)


def test_two_folders_with_a_task_of_one_name_are_refused(tmp_path):
    folders = [
        write_retrieval_set(tmp_path / place, num_queries=2, num_documents=4, num_answers=2, seed=0, name="own")
        for place in ("a", "b")
    ]
    with pytest.raises(EvaluationError, match=r"^named twice: own$"):
        choose_tasks(None, None, folders)


def test_nothing_at_all_is_refused():
    with pytest.raises(EvaluationError, match="--benchmark, --tasks or --data"):
        choose_tasks(None, None, None)
