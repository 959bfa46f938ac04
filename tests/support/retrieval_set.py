"""A small retrieval set in a folder, as RAR-b lays it out: texts of many kinds, and answers drawn by lot.

With random weights every ranking is as good as any other: many graded answers make that score far from zero.
"""

import json
import random
from pathlib import Path

INSTRUCTION = "Given a question, retrieve passages that answer it"
_WORDS = (
    *("river", "stone", "light", "winter", "naïve", "東京", "механика", "memory", "copper", "seven", "42", "theorem,"),
    *("bread;", "harbour", "(again)", "question", "answer", "valley", "engine", "цвет", "слово", "météo", "paper"),
    *("quickly", "nothing", "always", "3.14", "green", "because", "music", "window"),
)


def write_retrieval_set(
    folder: Path, *, num_queries: int, num_documents: int, num_answers: int, seed: int, name: str = "small-set"
) -> Path:
    """The folder: documents with and without a title, one of them empty, and a task.toml with INSTRUCTION."""
    chance = random.Random(seed)
    documents = [
        {
            "_id": f"d{number}",
            "title": _text(chance, 3) if number % 4 == 0 else "",
            "text": f"{_text(chance, chance.choice([1, 4, 12, 40]))} {number}",  # no two are alike
        }
        for number in range(num_documents)
    ]
    documents[1] |= {"title": "", "text": ""}
    queries = [{"_id": f"q{number}", "text": _text(chance, 9)} for number in range(num_queries)]
    answers = [
        f"{query['_id']}\t{document['_id']}\t{chance.choice([1, 2])}\n"
        for query in queries
        for document in chance.sample(documents, num_answers)
    ]
    folder.mkdir(parents=True)
    _write_lines(folder / "corpus.jsonl", documents)
    _write_lines(folder / "queries.jsonl", queries)
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(answers))
    (folder / "task.toml").write_text(f'name = "{name}"\ninstruction = "{INSTRUCTION}"\nlanguages = ["eng-Latn"]\n')
    return folder


def _text(chance: random.Random, num_words: int) -> str:
    return " ".join(chance.choice(_WORDS) for _ in range(num_words))


def _write_lines(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
