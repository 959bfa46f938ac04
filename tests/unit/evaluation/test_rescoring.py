"""Rescored searches against the same written out with numpy."""

import json
from pathlib import Path

import mteb
import numpy as np
import pytest

from evaluation.protocol.instructions import Instructions
from evaluation.protocol.settings import Served, Settings
from evaluation.records.folders import Folders
from evaluation.service.encoder import Encoder
from evaluation.service.encodings import derive
from evaluation.service.rescoring import RescoringSearch
from evaluation.service.session import Session
from evaluation.tasks.local_data import read_set
from evaluation.tasks.local_tasks import load
from tests.support.official_retrieval import PLACEHOLDER, document_text, ranking
from tests.support.retrieval_set import write_retrieval_set

DIMENSIONS = 48
NUM_DOCUMENTS = 40


class MadeUpVectors:
    """A vector for each text, the same whatever its instruction."""

    def vectors(self, texts, instruction, *, task, encoding=None) -> np.ndarray:
        return derive(np.stack([self.of(text) for text in texts]), DIMENSIONS, encoding)

    def of(self, text: str) -> np.ndarray:
        values = (
            np.random.default_rng(list((text or PLACEHOLDER).encode())).standard_normal(DIMENSIONS).astype(np.float32)
        )
        return values / np.linalg.norm(values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_retrieval_set(
        tmp_path_factory.mktemp("data") / "set", num_queries=5, num_documents=NUM_DOCUMENTS, num_answers=3, seed=0
    )


@pytest.fixture(scope="module")
def found(folder) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Ids of queries and of documents, and their float32 vectors."""
    data = read_set(folder, "default", "test")
    queries = np.stack([MadeUpVectors().of(query["text"]) for query in data.queries])
    documents = np.stack([MadeUpVectors().of(document_text(document)) for document in data.corpus])
    return [row["id"] for row in data.queries], [row["id"] for row in data.corpus], queries, documents


def search(folder, model_of, tmp_path, **settings) -> dict[str, list[str]]:
    """The ranking of each query, by mteb."""
    session = session_of(tmp_path, **settings)
    mteb.evaluate(
        model_of(session),
        load(folder),
        cache=None,
        prediction_folder=tmp_path,
        co2_tracker=False,
        show_progress_bar=False,
    )
    predictions = json.loads((tmp_path / "small-set_predictions.json").read_text())["default"]["test"]
    return {query: ranking(scores) for query, scores in predictions.items()}


def session_of(tmp_path, **settings) -> Session:
    served = Served(
        model="m",
        task="embedding",
        revision="r",
        native_dimensions=DIMENSIONS,
        max_input_tokens=512,
        dtype="float32",
        engine="packed",
    )
    return Session(
        client=None,
        model=None,
        settings=Settings(served=served, instructions="", dimensions=DIMENSIONS, **settings),
        instructions=Instructions(),
        folders=Folders(tmp_path),
        name="m",
    )


def ranked(queries, documents, query_ids, document_ids) -> dict[str, list[str]]:
    return {
        query_id: ranking(dict(zip(document_ids, row.tolist(), strict=True)))
        for query_id, row in zip(query_ids, cosines(queries, documents), strict=True)
    }


def cosines(queries, documents) -> np.ndarray:
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(documents, axis=1)
    return queries @ documents.T / lengths


@pytest.mark.parametrize("encoding", ["int8", "binary"])
def test_float_queries_meet_encoded_documents(encoding, folder, found, tmp_path):
    query_ids, document_ids, queries, documents = found
    ours = search(
        folder, lambda session: Encoder(session, MadeUpVectors()), tmp_path, encoding=encoding, float_queries=True
    )
    encoded = derive(documents, DIMENSIONS, encoding)
    assert ours == ranked(queries, encoded, query_ids, document_ids)
    assert ours != ranked(derive(queries, DIMENSIONS, "binary"), encoded, query_ids, document_ids)


def test_the_best_are_scored_again_and_the_others_stay_behind(folder, found, tmp_path):
    query_ids, document_ids, queries, documents = found
    ours = search(
        folder, lambda session: RescoringSearch(session, MadeUpVectors()), tmp_path, encoding="int8", rescore=10
    )
    exact = ranked(queries, documents, query_ids, document_ids)
    encoded = ranked(
        derive(queries, DIMENSIONS, "int8"), derive(documents, DIMENSIONS, "int8"), query_ids, document_ids
    )
    for query, best in encoded.items():
        assert ours[query][10:] == best[10:]
        assert ours[query][:10] == [document for document in exact[query] if document in best[:10]]


def test_rescoring_all_is_searching_with_float32(folder, found, tmp_path):
    query_ids, document_ids, queries, documents = found
    ours = search(
        folder,
        lambda session: RescoringSearch(session, MadeUpVectors()),
        tmp_path,
        encoding="binary",
        rescore=NUM_DOCUMENTS,
    )
    assert ours == ranked(queries, documents, query_ids, document_ids)
