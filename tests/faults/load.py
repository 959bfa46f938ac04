"""Clients: so many calls, so many a second, each asked again while it is refused and its client has patience."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import grpc
import grpc.aio

from qwen3.inference.v1 import embedding_pb2_grpc, rerank_pb2_grpc
from tests.faults.questions import Asking, Oracle, Question
from tests.faults.waiting import until
from tests.support.wire import refusal

MOST_IN_FLIGHT = 400
LOST_CONNECTION_RETRY_S = 0.1
RETRY_JITTER = 0.3  # as good clients do, or they would all come back together
LATE_S = 0.5  # after its deadline: what a busy machine may need to say that it has passed
_CHANNEL_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500))


class End(Enum):
    """How a call ended."""

    ANSWERED = "answered"
    WRONG = "wrong"
    REFUSED = "refused"  # to the end of its client's patience
    LOST = "lost"  # neither answered nor refused
    POISON = "poison"
    HURRIED = "hurried"  # its client hung up, or left too little time


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A call's end, when it came, and what was said on the way; times in seconds of time.monotonic()."""

    question: Question
    end: End
    started_at: float
    asked_at: float  # for the last time
    ended_at: float
    num_refusals: int
    error: str = ""

    @property
    def latency_s(self) -> float:
        return self.ended_at - self.started_at

    @property
    def attempt_s(self) -> float:
        """Of the last attempt alone."""
        return self.ended_at - self.asked_at

    @property
    def is_late(self) -> bool:
        return self.latency_s > self.question.patience_s + LATE_S


@dataclass(slots=True, kw_only=True)
class _Asked:
    """A call on its way."""

    question: Question
    started_at: float = field(default_factory=time.monotonic)
    asked_at: float = 0.0
    num_refusals: int = 0

    @property
    def left_s(self) -> float:
        return self.started_at + self.question.patience_s - time.monotonic()

    def end(self, end: End, error: str = "") -> Outcome:
        return Outcome(
            question=self.question,
            end=end,
            started_at=self.started_at,
            asked_at=self.asked_at,
            ended_at=time.monotonic(),
            num_refusals=self.num_refusals,
            error=error,
        )


class Clients:
    """A channel to each gateway; a call that one cannot take goes to the next."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._channels = [grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS) for address in addresses]
        self._embedding = [embedding_pb2_grpc.EmbeddingServiceStub(channel) for channel in self._channels]
        self._rerank = [rerank_pb2_grpc.RerankServiceStub(channel) for channel in self._channels]

    async def ask(self, question: Question, attempt: int, timeout_s: float) -> Any:
        place = (question.number + attempt) % len(self._channels)
        method: Any = self._rerank[place].Rerank if question.query else self._embedding[place].Embed
        again = (("x-previous-rpc-attempts", str(attempt)),) if attempt else ()
        return await method(question.request(), timeout=timeout_s, metadata=again)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


class Load:
    """`num_calls` calls over `seconds`; `outcomes` fill up meanwhile."""

    def __init__(self, clients: Clients, ask: Asking, oracle: Oracle, *, num_calls: int, seconds: float) -> None:
        self._clients, self._ask, self._oracle = clients, ask, oracle
        self.num_calls = num_calls
        self._interval_s = seconds / num_calls
        self._room = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._num_started = 0
        self.outcomes: list[Outcome] = []
        self.reasons: Counter[str] = Counter()

    async def run(self) -> None:
        began_at = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            for number in range(self.num_calls):
                await asyncio.sleep(max(began_at + number * self._interval_s - time.monotonic(), 0))
                await self._room.acquire()
                self._num_started += 1
                calls.create_task(self._live(self._ask(number)))

    @property
    def num_in_flight(self) -> int:
        return self._num_started - len(self.outcomes)

    @property
    def has_ended(self) -> bool:
        return len(self.outcomes) == self.num_calls

    async def started(self, share: float) -> None:
        """Wait until this share of the calls has been started."""
        await until(lambda: self._num_started >= share * self.num_calls, what="the load goes on", give_up_s=120)

    async def _live(self, question: Question) -> None:
        try:
            self.outcomes.append(await self._hurry(_Asked(question=question)))
        finally:
            self._room.release()

    async def _hurry(self, asked: _Asked) -> Outcome:
        try:
            async with asyncio.timeout(asked.question.hangs_up_after_s):
                return await self._ask_on(asked)
        except TimeoutError:
            return asked.end(End.HURRIED)

    async def _ask_on(self, asked: _Asked) -> Outcome:
        attempt = 0
        while True:
            asked.asked_at = time.monotonic()
            try:
                response = await self._clients.ask(asked.question, attempt, max(asked.left_s, 0.001))
            except grpc.aio.AioRpcError as error:
                wait_s = self._judge(asked, error)
                if isinstance(wait_s, Outcome):
                    return wait_s
                await asyncio.sleep(wait_s)
                attempt += 1
            else:
                is_right = self._oracle.is_right(asked.question, response)
                return asked.end(End.ANSWERED if is_right else End.WRONG)

    def _judge(self, asked: _Asked, error: grpc.aio.AioRpcError) -> Outcome | float:
        """The call's end, or how long to wait before it is asked again."""
        question, words = asked.question, f"{error.code().name}: {error.details()}"
        if question.is_poison and error.code() is grpc.StatusCode.INTERNAL and _reason(error) == "POISON_INPUT":
            return asked.end(End.POISON)
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return self._judge_refusal(asked, error)
        if question.is_hurried and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return asked.end(End.HURRIED)
        return asked.end(End.LOST, words)

    def _judge_refusal(self, asked: _Asked, error: grpc.aio.AioRpcError) -> Outcome | float:
        asked.num_refusals += 1
        self.reasons[_reason(error)] += 1
        wait_s = _retry_s(error) * random.uniform(1, 1 + RETRY_JITTER)
        if asked.question.retries and wait_s < asked.left_s:
            return wait_s
        return asked.end(End.HURRIED if asked.question.is_hurried else End.REFUSED, f"{error.details()}")


def _reason(error: grpc.aio.AioRpcError) -> str:
    """The gateway's reason; none where the connection to it was lost."""
    return refusal(error).reason if _has_details(error) else "LOST_CONNECTION"


def _retry_s(error: grpc.aio.AioRpcError) -> float:
    retry_s = refusal(error).retry_s if _has_details(error) else None
    return LOST_CONNECTION_RETRY_S if retry_s is None else retry_s


def _has_details(error: grpc.aio.AioRpcError) -> bool:
    return any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())
