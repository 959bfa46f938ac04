"""How much a task has to read, from what mteb knows of its data without downloading it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval

from evaluation.protocol.rules import PlannedInstruction

# Characters of a token of the published tokenizer, roughly: of letters, and of writing with a sign a syllable or word.
_CHARACTERS_PER_TOKEN = 4.0
_DENSE_CHARACTERS_PER_TOKEN = 1.5
_DENSE_LANGUAGES = frozenset({"bod", "cmn", "jpn", "khm", "kor", "lao", "mya", "tha", "wuu", "yue", "zho"})
_EMBEDDING_TEMPLATE_CHARACTERS = len("Instruct: \nQuery:")
_RERANK_TEMPLATE_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """`num_texts` are different ones, or a reranker's pairs. `num_tokens` is an estimate, good to a factor of two."""

    num_texts: int
    num_tokens: int

    def __add__(self, other: "Size") -> "Size":
        return Size(num_texts=self.num_texts + other.num_texts, num_tokens=self.num_tokens + other.num_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Texts:
    """Different texts of one side of a task, such as "queries"."""

    side: str
    num_texts: int
    mean_characters: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One split of one subset.

    Where the task has candidates of its own, for reranking, there are `num_candidates` of each of `num_rankings`
    queries, which may be alike.
    """

    sides: Mapping[str, _Texts]
    num_candidates: float | None = None
    num_rankings: float | None = None


def embedding_size(task: AbsTask, instruction: PlannedInstruction) -> Size | None:
    """Of every text once, with its instruction; None where mteb does not know.

    Training samples of classification tasks, some hundreds each, are not in it.
    """
    per_token = _characters_per_token(task)
    return _sum(
        _size(texts.num_texts, texts.mean_characters / per_token + _instruction_tokens(texts, instruction))
        for part in _parts(task, shared=True)
        for texts in part.sides.values()
    )


def pairs_size(task: AbsTask, instruction: PlannedInstruction, *, top_k: int) -> Size | None:
    """Of the `top_k` documents of every query, each with its prompt; None where mteb does not know.

    Pairs that are alike are sent once; how many are is not known, so there are at most so many.
    """
    per_token = _characters_per_token(task)
    template = (_RERANK_TEMPLATE_CHARACTERS + len(instruction.query or "")) / _CHARACTERS_PER_TOKEN
    return _sum(
        _size(
            round(
                (part.num_rankings or part.sides["queries"].num_texts)
                * min(top_k, part.num_candidates or documents.num_texts)
            ),
            (part.sides["queries"].mean_characters + documents.mean_characters) / per_token + template,
        )
        for part in _parts(task, shared=False)
        if (documents := part.sides.get("documents"))
    )


def _size(num_texts: int, tokens_per_text: float) -> Size:
    return Size(num_texts=num_texts, num_tokens=round(num_texts * tokens_per_text))


def _sum(sizes: Iterator[Size]) -> Size | None:
    first = next(sizes, None)
    return sum(sizes, start=first) if first else None


def _instruction_tokens(texts: _Texts, instruction: PlannedInstruction) -> float:
    said = instruction.document if texts.side == "documents" else instruction.query
    return (_EMBEDDING_TEMPLATE_CHARACTERS + len(said)) / _CHARACTERS_PER_TOKEN if said else 0.0


def _parts(task: AbsTask, *, shared: bool) -> Iterator[_Part]:
    """Those that are evaluated; `shared` joins the subsets of a split, so that texts of several count once.

    FloresBitextMining has 200 languages in 41,412 pairs of them.
    """
    if task.data_loaded and isinstance(task, AbsTaskRetrieval):
        yield from _loaded(task)
        return
    known: Mapping[str, Any] = task.metadata.descriptive_stats or {}
    for split in filter(known.__contains__, task.eval_splits):
        by_subset = known[split].get("hf_subset_descriptive_stats")
        if by_subset and (not shared or len(task.hf_subsets) < len(by_subset)):
            yield from (_described(by_subset[subset]) for subset in task.hf_subsets if subset in by_subset)
        else:
            yield _described(known[split])


def _described(stats: Mapping[str, Any]) -> _Part:
    """Of mteb's statistics: `queries_text_statistics` are of "queries", and so on, whatever counts characters."""
    sides = {name.removesuffix("_statistics").removesuffix("_text"): side for name, side in stats.items()}
    texts = {
        name: _Texts(side=name, num_texts=side["unique_texts"], mean_characters=side["average_text_length"])
        for name, side in sides.items()
        if isinstance(side, dict) and "average_text_length" in side
    }
    ranked = sides.get("top_ranked")
    if not ranked:
        return _Part(sides=texts)
    per_query = ranked["average_top_ranked_per_query"]
    return _Part(sides=texts, num_candidates=per_query, num_rankings=ranked["num_top_ranked"] / per_query)


def _loaded(task: AbsTaskRetrieval) -> Iterator[_Part]:
    for subset in task.hf_subsets:
        for split in task.eval_splits:
            data = task.dataset[subset][split]
            sides = (_count("queries", data["queries"]), _count("documents", data["corpus"]))
            yield _Part(sides={texts.side: texts for texts in sides})


def _count(side: str, rows: Any) -> _Texts:
    texts = set(rows["text"])
    return _Texts(side=side, num_texts=len(texts), mean_characters=sum(map(len, texts)) / max(1, len(texts)))


def _characters_per_token(task: AbsTask) -> float:
    languages = [code.split("-")[0] for code in task.metadata.languages]
    dense = sum(language in _DENSE_LANGUAGES for language in languages) / max(1, len(languages))
    return 1 / (dense / _DENSE_CHARACTERS_PER_TOKEN + (1 - dense) / _CHARACTERS_PER_TOKEN)
