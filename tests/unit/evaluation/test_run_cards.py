"""What a run's card says when a run does not go well. Runs that do are in tests/e2e."""

from contextlib import closing

import pytest

from evaluation import running
from evaluation.bars import Bars
from evaluation.card import read_cards
from evaluation.encoder import Encoder
from evaluation.folders import Folders
from evaluation.instructions import Instructions
from evaluation.local_tasks import load
from evaluation.running import run_tasks
from evaluation.session import Session
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
