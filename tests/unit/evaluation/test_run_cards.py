"""What a run's card says when a run does not go well. Runs that do are in tests/e2e."""

from contextlib import closing

import pytest

from evaluation.bars import Bars
from evaluation.errors import EvaluationError
from evaluation.protocol.instructions import Instructions
from evaluation.records.card import read_cards
from evaluation.records.folders import Folders
from evaluation.records.locks import alone_in
from evaluation.runs import running
from evaluation.runs.running import run_tasks
from evaluation.service.encoder import Encoder
from evaluation.service.session import Session
from evaluation.tasks.local_tasks import load
from qwen3_client import Client, UnavailableError
from tests.support.artificial_results import MODEL, SETTINGS
from tests.support.retrieval_set import write_retrieval_set


@pytest.fixture
def session(tmp_path):
    with closing(Client("127.0.0.1:1")) as client:  # is never asked
        yield Session(
            client=client,
            model=MODEL,
            settings=SETTINGS,
            instructions=Instructions(),
            folders=Folders(tmp_path),
            name=MODEL.id,
            bars=Bars(show=False),
        )


@pytest.fixture
def tasks(tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    return [
        load(write_retrieval_set(folder, num_queries=2, num_documents=4, num_answers=2, seed=0, name=folder.name))
        for folder in folders
    ]


def evaluate_with(error: Exception):
    def evaluate(*_):
        raise error

    return evaluate


def test_a_service_that_fails_ends_the_run_and_the_card_says_at_which_task(session, tasks, monkeypatch):
    monkeypatch.setattr(running, "_evaluate", evaluate_with(UnavailableError("no worker", code="UNAVAILABLE")))
    with pytest.raises(UnavailableError):
        run_tasks(Encoder(session), tasks)
    [card] = read_cards(session.run_folders.cards)
    assert card.finished is None
    assert [task.failure for task in card.tasks] == ["UnavailableError: UNAVAILABLE: no worker", None]
    assert [task.counts for task in card.tasks] == [None, None]


def test_a_task_whose_data_fails_is_named_and_the_others_go_on(session, tasks, monkeypatch):
    monkeypatch.setattr(running, "_evaluate", evaluate_with(ConnectionError("hub away")))
    run = run_tasks(Encoder(session), tasks)
    [card] = read_cards(session.run_folders.cards)
    assert card.finished is not None
    assert [task.failure for task in card.tasks] == ["ConnectionError: hub away"] * 2
    assert [task.task.name for task in run.failed] == ["first", "second"]


def test_a_second_run_of_the_same_is_refused_while_the_first_is_at_work(session, tasks):
    with alone_in(session.run_folders.cards), pytest.raises(EvaluationError, match="another run is at work"):
        run_tasks(Encoder(session), tasks)
    assert read_cards(session.run_folders.cards) == ()


def test_a_run_that_ended_stands_in_no_one_s_way(session, tasks, monkeypatch):
    monkeypatch.setattr(running, "_evaluate", evaluate_with(ConnectionError("hub away")))
    for _ in range(2):
        assert len(run_tasks(Encoder(session), tasks).failed) == 2
