"""Both adapters through the running service: mteb's mock run, what breaks off and goes on, what is refused."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from mteb.abstasks.aggregate_task_metadata import AggregateTaskMetadata
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.mocks.mock_run import get_compatible_mock_tasks, mock_run
from mteb.mocks.mock_tasks import MockRetrievalTask, MockSTSTask
from typer.testing import CliRunner

from evaluation.bars import Bars
from evaluation.cli import app
from evaluation.errors import EvaluationError
from evaluation.protocol.instructions import Instructions
from evaluation.protocol.rules import MAX_TEXT_BYTES
from evaluation.protocol.settings import Served, Settings
from evaluation.records.folders import Folders
from evaluation.records.rows import RowStore
from evaluation.runs.first_stage import find_predictions, first_stage, take_candidates
from evaluation.runs.running import run_tasks
from evaluation.service.cross_encoder import CrossEncoder
from evaluation.service.embedder import Embedder
from evaluation.service.encoder import Encoder
from evaluation.service.scorer import CALL_PAIRS, Pair, Scorer
from evaluation.service.served import find_model
from evaluation.service.session import Session
from evaluation.tasks.local_tasks import load
from qwen3_client import Client, InvalidRequestError
from qwen3_client.batches import MAX_CHUNK_TEXTS
from tests.support.retrieval_set import write_retrieval_set

# mteb copies tensors by their constructor; two texts of a mock task cannot hold every label.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mteb", "ignore:Precision is ill-defined")

TASK = "small-set"
NUM_QUERIES, NUM_DOCUMENTS, TOP_K = 4, 150, 120
CANDIDATES = "CrossEncoder search requires top_ranked documents"


@pytest.fixture
def session(address, tmp_path):
    """Makes a session of either task, with a client of its own class."""
    clients = []

    def make(task="embedding", kind=Client, **settings):
        clients.append(kind(address, timeout_s=120))
        found, instructions = find_model(clients[-1], "", task), Instructions()
        return Session(
            client=clients[-1],
            model=found,
            settings=Settings(
                served=Served.of(found, dtype="float32", engine="packed"),
                instructions=instructions.digest,
                dimensions=found.native_dimensions,
                **settings,
            ),
            instructions=instructions,
            folders=Folders(tmp_path / "results"),
            name=found.id,
            bars=Bars(show=False),
        )

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_retrieval_set(
        tmp_path / TASK, num_queries=NUM_QUERIES, num_documents=NUM_DOCUMENTS, num_answers=20, seed=3
    )


def score(run):
    (result,) = run.results
    return result.get_score()


def counts(run):
    (task,) = run.card.tasks
    assert task.failure is None
    return task.counts


def test_the_mock_run_of_mteb_passes_for_the_encoder(session):
    results = mock_run(Encoder(session()))
    assert results.all_passed, results.to_markdown()
    assert results.modality_summary()[0][:2] == ("✓ (28/28)", "text")


def test_the_mock_run_of_mteb_passes_for_the_cross_encoder_where_it_has_candidates(session):
    reranker = CrossEncoder(session("rerank"))
    results = mock_run(reranker)
    failed = [name for name, status in results.items() if hasattr(status, "exception")]
    assert results.modality_summary()[0][0] == "✗ (4/9)"
    assert all(CANDIDATES in results[name].exception for name in failed)
    assert all("Reranking" not in name for name in failed)

    embedding = session()
    without = [task for task in get_compatible_mock_tasks(reranker) if task.metadata.name in failed]
    assert run_tasks(Encoder(embedding), without).failed == []
    prepare = partial(take_candidates, predictions=embedding.run_folders.predictions, top_k=2)
    run = run_tasks(reranker, without, prepare=prepare)
    assert run.failed == []
    assert len(run.results) == len(failed) == 5


class BreakingClient(Client):
    """The connection is lost in the middle, for good."""

    num_answers = 2

    def embed_stream(self, *arguments, **options):
        for result in super().embed_stream(*arguments, **options):
            self._count_down()
            yield result

    def rerank(self, *arguments, **options):
        self._count_down()
        return super().rerank(*arguments, **options)

    def _count_down(self):
        if self.num_answers == 0:
            raise ConnectionError("lost")
        self.num_answers -= 1


def test_an_embedding_run_that_broke_off_asks_for_the_rest_only_and_scores_the_same(session, folder):
    broken = run_tasks(Encoder(session(kind=BreakingClient)), [load(folder)])
    assert [task.failure for task in broken.failed] == ["ConnectionError: lost"]
    first = session()
    resumed = run_tasks(Encoder(first), [load(folder)])
    whole = run_tasks(Encoder(replace(session(), name="whole")), [load(folder)])
    assert score(resumed) == score(whole)
    num_stored = counts(whole).num_sent_texts - counts(resumed).num_sent_texts
    assert num_stored == NUM_QUERIES + MAX_CHUNK_TEXTS, "an answer of queries and one of documents"
    assert counts(resumed).num_texts == counts(whole).num_texts == NUM_QUERIES + NUM_DOCUMENTS
    assert counts(whole).num_placeholders == 1
    assert list(first.run_folders.rows.iterdir()) == [], "answers are kept no longer than needed"


def test_a_reranking_run_that_broke_off_asks_for_the_rest_only_and_scores_the_same(session, folder):
    embedding = session()
    run_tasks(Encoder(embedding), [load(folder)])
    predictions = find_predictions(embedding.folders.root)
    stage = first_stage(predictions, top_k=TOP_K)
    assert stage.run == embedding.settings.run_revision
    rerank = partial(session, "rerank", first_stage=stage)
    prepare = partial(take_candidates, predictions=predictions, top_k=TOP_K)

    broken = run_tasks(CrossEncoder(rerank(kind=BreakingClient), concurrency=1), [load(folder)], prepare=prepare)
    assert [task.failure for task in broken.failed] == ["ConnectionError: lost"]
    resumed = run_tasks(CrossEncoder(rerank()), [load(folder)], prepare=prepare)
    whole = run_tasks(CrossEncoder(replace(rerank(), name="whole")), [load(folder)], prepare=prepare)
    assert score(resumed) == score(whole)
    assert counts(whole).num_texts == counts(resumed).num_texts == NUM_QUERIES * TOP_K
    assert counts(whole).num_sent_texts - counts(resumed).num_sent_texts == TOP_K, "two calls of one query"
    assert CALL_PAIRS < TOP_K


def test_a_pair_that_comes_again_is_sent_once_also_while_its_answer_is_under_way(session):
    found = session("rerank")
    pairs = [Pair("query", f"document {number}") for number in [*range(150), *range(150)]]
    for store in (found.store, RowStore(found.run_folders.rows)):  # as another run finds it
        scorer = Scorer(found.client, found.settings, store, found.tally, found.bars, concurrency=8)
        scores = scorer.scores(iter(pairs), None, task=TASK, num_pairs=len(pairs))
        assert scores[:150].tolist() == scores[150:].tolist()
        assert len(set(scores[:150].tolist())) > 1
    read = found.tally.take()
    assert (read.num_texts, read.num_sent_texts) == (600, 150)


def test_a_query_that_leaves_no_room_for_documents_is_counted_and_the_others_are_scored(session):
    found = session("rerank")
    scorer = Scorer(found.client, found.settings, found.store, found.tally, found.bars, concurrency=2)
    long = "long " * found.settings.served.max_input_tokens
    pairs = [Pair(query, document) for query in (long, "short") for document in ("one", "two")]
    scores = scorer.scores(pairs, None, task=TASK, num_pairs=len(pairs))
    assert scores[:2].tolist() == [0.0, 0.0]
    assert (scores[2:] > 0).all()
    read = found.tally.take()
    assert (read.num_texts, read.num_sent_texts, read.num_refused, read.num_placeholders) == (4, 4, 2, 0)


def test_what_is_wrong_with_a_call_itself_ends_the_run(session):
    found = session("rerank")
    wrong = replace(found.settings, served=replace(found.settings.served, model=session().model.id))
    scorer = Scorer(found.client, wrong, found.store, found.tally, found.bars, concurrency=2)
    with pytest.raises(InvalidRequestError):
        scorer.scores([Pair("query", "document")], None, task=TASK, num_pairs=1)


def test_of_a_text_with_more_bytes_than_the_service_takes_the_first_are_sent(session):
    found = session()
    lines = "one line\n" * (MAX_TEXT_BYTES // 8)
    embedder = Embedder(found.client, found.settings, found.store, found.tally, found.bars)
    vectors = embedder.vectors([lines], None, task=TASK)
    first = found.client.embed([lines[:MAX_TEXT_BYTES]], truncation="end").vectors
    assert vectors == pytest.approx(first, abs=1e-6)


def test_what_is_finished_is_not_run_again_and_other_settings_are(session, folder):
    first = run_tasks(Encoder(session()), [load(folder)])
    again = run_tasks(Encoder(session(kind=BreakingClient)), [load(folder)])
    assert (score(again), counts(again)) == (score(first), counts(first))
    narrow = session(encoding="int8")
    other = run_tasks(Encoder(narrow), [load(folder)])
    assert counts(other).num_sent_texts == counts(first).num_sent_texts
    assert narrow.run_folders.result(TASK).exists()


def test_results_that_were_half_written_are_written_anew(session, folder):
    found = session()
    for path in (found.run_folders.result(TASK), found.run_folders.prediction(TASK)):
        path.parent.mkdir(parents=True)
        path.write_text('{"scores": ')
    assert counts(run_tasks(Encoder(found), [load(folder)])).num_texts == NUM_QUERIES + NUM_DOCUMENTS
    assert json.loads(found.run_folders.result(TASK).read_text())["scores"]
    assert json.loads(found.run_folders.prediction(TASK).read_text())["default"]

    found.run_folders.result(TASK).write_text('{"scores": ')  # where other splits are added to a finished task
    assert counts(run_tasks(Encoder(session()), [load(folder)])).num_texts == NUM_QUERIES + NUM_DOCUMENTS
    assert json.loads(found.run_folders.result(TASK).read_text())["scores"]


class BothTasks(AbsTaskAggregate):
    """Made of two mock tasks."""

    metadata = AggregateTaskMetadata(
        name="BothTasks",
        description="The mean of both.",
        reference=None,
        tasks=[MockRetrievalTask(), MockSTSTask()],
        main_score="main_score",
        type="Retrieval",
        eval_splits=["test"],
    )


def test_a_task_that_is_made_of_several_keeps_their_results_and_its_own(session):
    found = session()
    first = run_tasks(Encoder(found), [BothTasks()])
    again = run_tasks(Encoder(session(kind=BreakingClient)), [BothTasks()])
    assert score(again) == pytest.approx(score(first)), "it is rounded where it is kept"
    assert counts(again) == counts(first)
    assert all(found.run_folders.result(task).exists() for task in ("BothTasks", "MockRetrievalTask", "MockSTSTask"))


@pytest.mark.parametrize(("task", "adapter"), [("embedding", Encoder), ("rerank", CrossEncoder)])
def test_another_revision_than_at_the_start_ends_the_run(session, folder, task, adapter):
    begun = session(task)
    other = replace(begun.settings, served=replace(begun.settings.served, revision="before"))
    changed = replace(begun, settings=other)
    with pytest.raises(EvaluationError, match="before"):
        run_tasks(adapter(changed), [with_candidates(load(folder))])
    assert all(file.stat().st_size == 0 for file in changed.run_folders.rows.rglob("*.rows")), "nothing is kept"


def with_candidates(task):
    data = task.dataset["default"]["test"]
    data["top_ranked"] = dict.fromkeys(data["queries"]["id"], data["corpus"]["id"][:3])
    return task


def command(*arguments, **options):
    return CliRunner().invoke(app, list(map(str, arguments)), **options)


def test_an_unknown_model_or_an_unstated_dtype_ends_the_command_in_one_line(address, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("QWEN3_EVAL_DTYPE", raising=False)
    common = ("--target", address, "mteb", "--data", folder, "--output", tmp_path / "none", "--no-progress")
    unknown = command(*common, "--model", "nobody", "--dtype", "float32", "--engine", "packed")
    unstated = command(*common)
    assert (unknown.exit_code, unstated.exit_code) == (1, 1)
    assert "qwen3-eval: no embedding model 'nobody' is served; there is: " in unknown.stderr
    assert "say --dtype and --engine" in unstated.stderr
    assert not (tmp_path / "none").exists()


def test_a_run_says_before_it_starts_what_it_will_do(address, folder, tmp_path):
    stated = ("--dtype", "float32", "--engine", "packed", "--output", tmp_path / "r")
    outcome = command("--target", address, "mteb", "--data", folder, *stated, "--tokens-per-s", 100)
    assert outcome.exit_code == 0, outcome.output
    told = outcome.stdout.splitlines()
    assert told[0].startswith(f"{TASK}: Retrieval, test, 15")
    assert told[1] == "    Given a question, retrieve passages that answer it (mteb's prompt of the task)"
    assert told[2].startswith("1 tasks: 15")
    assert any(line.startswith("not as the authors: max_input_tokens=") for line in told)
    assert any(line.startswith("about 0:00:") and line.endswith("at 100 tokens/s (as stated)") for line in told)
    assert " 1 empty; " in told[-2]
    assert told[-1].startswith(f"scores: {tmp_path}")
    card = json.loads(next((tmp_path / "r").glob("runs/*/*/*.json")).read_text())
    assert card["finished"]
