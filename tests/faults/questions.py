"""What clients ask, and whether an answer is the right one."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from gateway.prompts import Prompt, embed_prompt, rerank_prompt
from gateway.tokenization import PromptTokenizer, Truncation, tokenize
from qwen3.inference.v1 import common_pb2, embedding_pb2, rerank_pb2
from tests.faults.answers import POISON, logit, vector
from tests.faults.echo_worker import INSTRUCTION

Request: TypeAlias = "embedding_pb2.EmbedRequest | rerank_pb2.RerankRequest"
Response: TypeAlias = "embedding_pb2.EmbedResponse | rerank_pb2.RerankResponse"

CLIENT_PATIENCE_S = 30.0
_LANES = (common_pb2.PRIORITY_INTERACTIVE, common_pb2.PRIORITY_INTERACTIVE, common_pb2.PRIORITY_BULK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call. `patience_s` is its client's deadline; a client that gives up hangs up after `hangs_up_after_s`."""

    number: int
    texts: Sequence[str]
    query: str = ""  # a rerank call has one
    is_bulk: bool = False
    patience_s: float = CLIENT_PATIENCE_S
    retries: bool = True
    hangs_up_after_s: float | None = None
    is_poison: bool = False

    @property
    def is_hurried(self) -> bool:
        """Whether it need not be answered: its client hangs up, or leaves too little time."""
        return self.hangs_up_after_s is not None or self.patience_s < 1

    def request(self) -> Request:
        priority = common_pb2.PRIORITY_BULK if self.is_bulk else common_pb2.PRIORITY_INTERACTIVE
        if self.query:
            return rerank_pb2.RerankRequest(
                query=self.query,
                documents=self.texts,
                order=rerank_pb2.RERANK_ORDER_INPUT,
                score_type=rerank_pb2.SCORE_TYPE_LOGIT,
                priority=priority,
                request_id=str(self.number),
            )
        config = embedding_pb2.EmbedConfig(priority=priority)
        return embedding_pb2.EmbedRequest(config=config, inputs=self.texts, request_id=str(self.number))


Asking: TypeAlias = Callable[[int], Question]


def mixed(number: int) -> Question:
    """Embed and rerank, interactive and bulk, one job and several; no two texts are the same."""
    chance = random.Random(number)
    num_texts = chance.choice((1, 1, 1, 2, 4, 12))
    texts = [_text(chance, f"{number}.{place}") for place in range(num_texts)]
    query = f"query {number}" if chance.random() < 0.3 else ""
    return Question(number=number, texts=texts, query=query, is_bulk=chance.random() < 0.3)


def embedding_only(number: int) -> Question:
    return replace(mixed(number), query="")


def hurried(number: int) -> Question:
    """Of five clients two hang up at some moment, and two leave a deadline of a moment."""
    chance, question = random.Random(number), mixed(number)
    moment_s = chance.random() * 0.06
    if number % 5 < 2:
        return replace(question, hangs_up_after_s=moment_s)
    return replace(question, patience_s=moment_s + 0.001, retries=False) if number % 5 < 4 else question


def with_poison(num_poisons: int, *, every: int) -> Asking:
    """Good questions, and `num_poisons` bad ones, the first after half of `every`."""
    poisons = {every // 2 + place * every for place in range(num_poisons)}

    def ask(number: int) -> Question:
        question = mixed(number)
        if number not in poisons:
            return question
        return replace(question, texts=[f"{number} {POISON}"], query="", is_bulk=False, is_poison=True)

    return ask


def mostly_impatient(number: int) -> Question:
    """Of twenty clients that are refused, one comes back."""
    return replace(embedding_only(number), retries=number % 20 == 0)


def _text(chance: random.Random, name: str) -> str:
    return f"text {name} " + " ".join(str(chance.randrange(10_000)) for _ in range(chance.randrange(5, 25)))


class Oracle(Protocol):
    """Knows the right answers."""

    def is_right(self, question: Question, response: Any) -> bool: ...


class EchoOracle:
    """Computes what an echo worker must have answered, from the texts."""

    def __init__(self, tokenizer_json: bytes) -> None:
        self._tokenizer = PromptTokenizer(tokenizer_json)

    def is_right(self, question: Question, response: Any) -> bool:
        prompt = tokenize(self._tokenizer, _prompt(question), Truncation.ERROR, None)
        sequences = [prompt.prefix + tail for tail in prompt.tails]
        if question.query:
            return [result.score for result in response.results] == [logit(ids) for ids in sequences]
        return [found.packed for found in response.embeddings] == [vector(ids).tobytes() for ids in sequences]


def _prompt(question: Question) -> Prompt:
    if question.query:
        return rerank_prompt(question.query, question.texts, instruction=INSTRUCTION, field="documents")
    return embed_prompt(question.texts, instruction=None)
