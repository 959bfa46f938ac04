"""The examples run as they stand, and print what transformers computes on the same checkpoints."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.official import DEFAULT_INSTRUCTION, OfficialEmbedding, OfficialReranker, detailed_instruct

EXAMPLES = Path("examples")
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[-+]\d+)?")
LARGEST_DIFFERENCE = 1e-5
PRINTED_DIFFERENCE = 1e-4  # of scores that are printed with four digits

QUERIES = ["What is the capital of China?", "Explain gravity"]
DOCUMENTS = [
    "The capital of China is Beijing.",
    (
        "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
        "responsible for the movement of planets around the sun."
    ),
]
QUESTION = "Why do leaves change colour?"


@pytest.fixture
def run(address, monkeypatch, capsys):
    """What an example prints, run as `python examples/NAME ARGUMENTS` would."""

    def run_example(name: str, *arguments: str) -> str:
        monkeypatch.setenv("QWEN3_TARGET", address)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run_example


@pytest.fixture(scope="module")
def official(embedding_checkpoint) -> OfficialEmbedding:
    return OfficialEmbedding(embedding_checkpoint)


@pytest.fixture(scope="module")
def official_reranker(rerank_checkpoint) -> OfficialReranker:
    return OfficialReranker(rerank_checkpoint)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """A file of 160 documents: more than are reranked."""
    lines = (EXAMPLES / "documents.txt").read_text().splitlines()
    path = tmp_path_factory.mktemp("library") / "documents.txt"
    path.write_text("".join(f"Volume {volume}, {line}\n" for volume in range(1, 5) for line in lines))
    return path


@pytest.fixture(scope="module")
def cosines(library, official) -> dict[str, float]:
    """Each document's, with the question."""
    documents = library.read_text().splitlines()
    (query,) = official.embed([detailed_instruct(DEFAULT_INSTRUCTION, QUESTION)])
    return dict(zip(documents, official.embed(documents) @ query, strict=True))


@pytest.mark.parametrize("name", ["qwen3_embedding_transformers.py", "qwen3_embedding_vllm.py"])
def test_the_official_embedding_examples_print_what_transformers_computes(name, run, official):
    queries = official.embed([detailed_instruct(DEFAULT_INSTRUCTION, query) for query in QUERIES])
    documents = official.embed(DOCUMENTS)
    vectors, scores = run(name).removesuffix("\n").rsplit("\n", 1)
    assert re.fullmatch(r"query outputs (\[\[.*\]\])\ndoc outputs (\[\[.*\]\])", vectors, re.DOTALL)
    wanted = np.concatenate([queries, documents])
    assert numbers(vectors) == pytest.approx(wanted.ravel(), rel=0, abs=LARGEST_DIFFERENCE)
    cosines = np.array(json.loads(scores)) / 100  # printed times 100, as the original does
    assert cosines == pytest.approx(queries @ documents.T, rel=0, abs=LARGEST_DIFFERENCE)


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("qwen3_reranker_transformers.py", "Given the user query, retrieval the relevant passages"),
        ("qwen3_reranker_vllm.py", "Retrieval document that can answer user's query"),
    ],
)
def test_the_official_reranker_examples_print_what_transformers_computes(name, instruction, run, official_reranker):
    label, scores = run(name).split(" ", 1)
    assert label == "scores"
    wanted = [
        official_reranker.scores(query, [document], instruction).item()
        for query, document in zip(QUERIES, DOCUMENTS, strict=True)
    ]
    assert json.loads(scores) == pytest.approx(wanted, rel=0, abs=LARGEST_DIFFERENCE)


def test_search_with_numpy_finds_the_nearest(run, library, cosines):
    check_best(run("search_numpy.py", str(library), QUESTION), cosines)


def test_search_with_faiss_finds_the_nearest(run, library, cosines):
    assert run("search_faiss.py", str(library)) == ""
    check_best(run("search_faiss.py", str(library), QUESTION), cosines)


def test_two_stages_rerank_the_hundred_nearest(run, library, cosines, official_reranker):
    nearest = sorted(cosines, key=cosines.get, reverse=True)[:100]
    scores = official_reranker.scores(QUESTION, nearest)
    check_best(run("two_stage.py", str(library), QUESTION), dict(zip(nearest, scores, strict=True)))


def test_the_readme_names_every_example():
    readme = (EXAMPLES / "README.md").read_text()
    names = {path.name for suffix in ("*.py", "*.txt") for path in EXAMPLES.glob(suffix)}
    assert names == {name for name in names if f"({name}" in readme}


def check_best(printed: str, scores: dict[str, float]) -> None:
    """The ten best of these documents, best first, each with its score: equal scores may come in any order."""
    lines = [line.split("  ", 1) for line in printed.splitlines()]
    best = sorted(scores.values(), reverse=True)[:10]
    assert [float(score) for score, _ in lines] == pytest.approx(best, rel=0, abs=PRINTED_DIFFERENCE)
    assert [scores[text] for _, text in lines] == pytest.approx(best, rel=0, abs=LARGEST_DIFFERENCE)
    assert len({text for _, text in lines}) == 10


def numbers(printed: str) -> np.ndarray:
    return np.array([float(number) for number in NUMBER.findall(printed)])
