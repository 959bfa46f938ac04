"""A set in a local folder through the running service: embedding, reranking, a sweep, and a run that is killed.

The scores of random weights mean nothing. What counts is that they are those of transformers in this process.
"""

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import mteb
import numpy as np
import pytest
from mteb.models import ModelMeta
from typer.testing import CliRunner

from evaluation.cli import app
from evaluation.runs.first_stage import take_candidates
from evaluation.tasks.local_data import RetrievalSet, read_set
from evaluation.tasks.local_tasks import load
from tests.support.echo import NATIVE_DIMENSIONS, EchoWorker, eventually
from tests.support.http import Scrape, http_address
from tests.support.official_retrieval import (
    OfficialReranking,
    OfficialRetrieval,
    Run,
    document_text,
    ndcg_at_10,
    ranking,
)
from tests.support.processes import gateway, worker
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.retrieval_set import INSTRUCTION, write_retrieval_set

TASK = "small-set"
SAME_NDCG = 1e-4
LEAST_GAP = 1e-5  # between neighbours of the reference's best: rounding moves scores by less
TOP_K = 100
STREAM_TEXTS = 17 * 64  # what a bulk call has under way, and what is being written
ROW_BYTES = 16 + 4 * NATIVE_DIMENSIONS + 4 + 4 + 1  # digest, vector, scale, tokens, truncated
STATED = ("--dtype", "float32", "--engine", "packed", "--tokens-per-s", "1000", "--no-progress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    address: str
    http: str

    def num_inputs(self) -> int:
        """Texts and documents that it has answered."""
        return int(Scrape(self.http).value("qwen3_call_inputs_total"))


@pytest.fixture(scope="module")
def service(embedding_checkpoint, rerank_checkpoint) -> Iterator[Service]:
    with (
        redis_server(embedded_binary()) as url,
        worker(url, embedding_checkpoint),
        worker(url, rerank_checkpoint),
        gateway(url, "--max-wait-s", "600", "--http-listen", "127.0.0.1:0") as (process, address),
    ):
        yield Service(address=address, http=http_address(process))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_retrieval_set(
        tmp_path_factory.mktemp("data") / TASK, num_queries=6, num_documents=110, num_answers=30, seed=1
    )


@pytest.fixture(scope="module")
def data(folder) -> RetrievalSet:
    return read_set(folder, "default", "test")


@pytest.fixture(scope="module")
def results(tmp_path_factory, service, folder) -> Path:
    """The results folder, with the embedding run's results in it."""
    output = tmp_path_factory.mktemp("results")
    evaluate("mteb", service.address, folder, output)
    return output


@pytest.fixture(scope="module")
def official_run(embedding_checkpoint, data) -> Run:
    return OfficialRetrieval(embedding_checkpoint).search(data.queries, data.corpus, INSTRUCTION)


def evaluate(verb: str, address: str, folder: Path, output: Path, *options: str) -> None:
    run_command("--target", address, verb, "--data", str(folder), "--output", str(output), *STATED, *options)


def run_command(*arguments: str) -> str:
    outcome = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def only(paths: Iterator[Path]) -> Path:
    (found,) = paths
    return found


def scores(output: Path, model: str) -> dict[str, Any]:
    file = only(output.glob(f"results/*{model}*/*/{TASK}.json"))
    return json.loads(file.read_text())["scores"]["test"][0]


def predictions(output: Path, model: str) -> Path:
    return only(output.glob(f"predictions/*{model}*/*"))


def predicted(output: Path, model: str) -> Run:
    return json.loads((predictions(output, model) / f"{TASK}_predictions.json").read_text())["default"]["test"]


def least_gap(run: Run) -> float:
    """Between neighbours among the first eleven."""
    best = [sorted(of_query.values(), reverse=True)[:11] for of_query in run.values()]
    return min(above - below for scores in best for above, below in itertools.pairwise(scores))


def test_embedding_scores_are_those_of_transformers(results, official_run, data):
    assert least_gap(official_run) > LEAST_GAP
    expected = ndcg_at_10(data.relevance, official_run)
    assert expected > 0.1, "a score of nearly zero would prove nothing"
    assert scores(results, "embedding")["ndcg_at_10"] == pytest.approx(expected, abs=SAME_NDCG)
    for query, of_query in predicted(results, "embedding").items():
        assert ranking(of_query)[:10] == ranking(official_run[query])[:10]


def test_reranking_scores_are_those_of_transformers(results, official_run, rerank_checkpoint, service, folder, data):
    found = predictions(results, "embedding")
    evaluate("rerank", service.address, folder, results, "--from", str(found), "--top-k", str(TOP_K))
    official = OfficialReranking(rerank_checkpoint).rerank(
        official_run, data.queries, data.corpus, INSTRUCTION, top_k=TOP_K
    )
    assert least_gap(official) > LEAST_GAP
    expected = ndcg_at_10(data.relevance, official)
    assert expected > 0.1
    assert scores(results, "rerank")["ndcg_at_10"] == pytest.approx(expected, abs=SAME_NDCG)


class SameScores:
    """A cross-encoder that says again what a run said."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.mteb_model_meta = ModelMeta.create_empty({"name": "tests/same-scores", "revision": "1"})

    def predict(self, inputs1, inputs2, **_: Any) -> np.ndarray:
        pairs = zip(ids(inputs1), ids(inputs2), strict=True)
        return np.array([self._run[query][document] for query, document in pairs])


def ids(inputs) -> list[str]:
    return [identifier for batch in inputs for identifier in batch["id"]]


def test_reranking_with_the_same_scores_changes_nothing(results, folder):
    task = load(folder)
    take_candidates(task, predictions(results, "embedding"), top_k=TOP_K)
    again = mteb.evaluate(
        SameScores(predicted(results, "embedding")), task, cache=None, co2_tracker=False, show_progress_bar=False
    )
    assert again.task_results[0].get_score() == scores(results, "embedding")["ndcg_at_10"]


def test_other_data_under_the_same_name_is_evaluated_anew(results, service, folder, data, tmp_path):
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in folder.iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    lines = (folder / "qrels.tsv").read_text().splitlines()
    (changed / "qrels.tsv").write_text("\n".join([lines[0], *(line for line in lines[1:] if line.endswith("2"))]))
    before = scores(results, "embedding")["ndcg_at_10"]
    with pytest.raises(AssertionError, match="small-set has other data than its candidates"):
        evaluate("rerank", service.address, changed, results, "--from", str(predictions(results, "embedding")))
    evaluate("mteb", service.address, changed, results)
    assert scores(results, "embedding")["ndcg_at_10"] != before
    evaluate("mteb", service.address, folder, results)
    assert scores(results, "embedding")["ndcg_at_10"] == before


def test_a_sweep_computes_each_text_once_and_compares_what_is_served(results, service, folder, data, tmp_path):
    before = service.num_inputs()
    table = run_sweep(service, folder, tmp_path)
    rows = json.loads((tmp_path / "sweep.json").read_text())
    by_choice = {(row["dimensions"], row["encoding"], row["rescore"]): row for row in rows}
    assert len(rows) == len(by_choice) == 10
    assert by_choice[128, "float32", 0]["score"] == scores(results, "embedding")["ndcg_at_10"]
    for dimensions in (128, 32):
        exact = by_choice[dimensions, "float32", 0]
        for encoding in ("int8", "binary"):
            rescored = by_choice[dimensions, encoding, 1000]
            assert rescored["score"] == exact["score"], "every document is scored again"
            assert rescored["bytes_per_vector"] < exact["bytes_per_vector"]
    assert by_choice[32, "binary", 0]["bytes_per_vector"] == 4
    assert by_choice[32, "binary", 0]["score"] < by_choice[128, "float32", 0]["score"] + 1
    num_texts = len({document_text(document) for document in data.corpus}) + len(data.queries)
    num_samples = (len(rows) + 4) * len(data.queries)  # a row's first texts are the queries; rescored, also as float32
    assert service.num_inputs() - before == num_texts + num_samples
    assert "bytes/vector" in table
    assert (tmp_path / "sweep.csv").read_text().count("\n") == 11
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")

    before = service.num_inputs()
    assert run_sweep(service, folder, tmp_path) == table
    assert service.num_inputs() == before, "finished rows are not run again"


def run_sweep(service: Service, folder: Path, output: Path) -> str:
    axes = "--dimensions 0 --dimensions 32 --encoding float32 --encoding int8 --encoding binary"
    return run_command(
        "sweep",
        "--service",
        f"{service.address},dtype=float32,engine=packed",
        *("--data", str(folder), "--output", str(output), "--plot", str(output / "sweep.png"), "--no-progress"),
        *axes.split(),
        *("--rescore", "no", "--rescore", "1000"),
    )


class StallingWorker(EchoWorker):
    """Answers the first texts, and then none until it is released."""

    def __init__(self, redis_url: str, model_id: str, *, num_first: int) -> None:
        super().__init__(redis_url, model_id)
        self._num_first = num_first
        self.num_answered = 0
        self.has_stalled = Event()

    def _answer(self, taken, job):
        self.num_answered += len(job.tails)
        if self.num_answered >= self._num_first and not self.has_stalled.is_set():
            self.hold()
            self.has_stalled.set()
        return super()._answer(taken, job)


def test_a_killed_run_goes_on_and_asks_for_nothing_it_has(tmp_path):
    folder = write_retrieval_set(tmp_path / TASK, num_queries=5, num_documents=1400, num_answers=20, seed=2)
    data = read_set(folder, "default", "test")
    num_texts = len({document_text(document) for document in data.corpus}) + len(data.queries)
    with (
        redis_server(embedded_binary()) as url,
        StallingWorker(url, "echo", num_first=400) as echo,
        gateway(url) as (_, address),
    ):
        num_rows = rows_of_a_killed_run(echo, command(address, folder, tmp_path / "killed"), tmp_path / "killed")
        assert num_rows < num_texts
        echo.release()
        run_command(*command(address, folder, tmp_path / "killed"))
        num_answered = echo.num_answered
        run_command(*command(address, folder, tmp_path / "whole"))
        assert echo.num_answered - num_answered == num_texts
    counts = json.loads(only((tmp_path / "killed").glob(f"runs/*/*/counts/{TASK}.json")).read_text())
    assert counts["num_sent_texts"] == num_texts - num_rows
    assert num_answered - num_texts <= STREAM_TEXTS
    assert scores(tmp_path / "killed", "echo") == scores(tmp_path / "whole", "echo")


def command(address: str, folder: Path, output: Path) -> Sequence[str]:
    return ("--target", address, "mteb", "--data", str(folder), "--output", str(output), *STATED)


def rows_of_a_killed_run(echo: StallingWorker, arguments: Sequence[str], output: Path) -> int:
    """How many vectors are on disk when it dies."""
    with subprocess.Popen([sys.executable, "-m", "evaluation", *arguments]) as process:
        try:
            eventually(lambda: process.poll() is not None or (output / "runs").exists())  # libraries take seconds
            eventually(lambda: process.poll() is not None or (echo.has_stalled.is_set() and num_rows(output) >= 64))
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
    return num_rows(output)


def num_rows(output: Path) -> int:
    return sum(file.stat().st_size // ROW_BYTES for file in output.glob("rows/**/float32.rows"))
