"""The rows with the project's own worker, on a small checkpoint; its right answers are those of a quiet moment."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from jobqueue.keys import QueueKeys
from tests.faults.questions import Question, embedding_only
from tests.faults.service import WorkerPlan
from tests.faults.stage import Files, Plan, Size
from tests.faults.waiting import until

NUM_DIFFERENT = 60
TOLERANCE = 1e-5  # a vector depends on its batch by this much at most
QUEUE = QueueKeys("tiny@r1")
NUM_WORKERS = 2
AT_ONCE = 8
HUGE_WORDS = 30_000


def sixty_texts(number: int) -> Question:
    """As many different calls as can be asked before; the texts of two of them are never the same."""
    return replace(embedding_only(number % NUM_DIFFERENT), number=number)


def with_one_that_hangs(number: int) -> Question:
    """One call takes longer than --max-batch-s, whoever runs it."""
    question = sixty_texts(number)
    if number != NUM_DIFFERENT:
        return question
    return replace(question, texts=["word " * HUGE_WORDS], is_bulk=False, is_poison=True)


def real(*options: str) -> Plan:
    """Two workers of one embedding model."""

    def plan(files: Files, _: Size) -> Sequence[WorkerPlan]:
        checkpoint = make_small_checkpoint(files.tokenizer.parent / "tiny")
        names = ["--name", "tiny", "--revision", "r1", "--lease-s", "1.5", "--threads", "1"]
        command = [sys.executable, "-m", "worker", str(checkpoint), *names, *options]
        return [WorkerPlan(command=tuple(command))] * NUM_WORKERS

    return plan


def make_small_checkpoint(folder: Path) -> Path:
    from worker.make_checkpoint import make_checkpoint  # noqa: PLC0415 - loads torch, which no other row needs
    from worker.model.task import ModelTask  # noqa: PLC0415 - likewise

    make_checkpoint(folder, task=ModelTask.EMBED, seed=0)
    return folder


class RecordedOracle:
    """Knows what was answered before anything was broken."""

    def __init__(self, answers: Sequence[np.ndarray]) -> None:
        self._answers = answers

    @classmethod
    async def record(cls, clients: Any) -> "RecordedOracle":
        await until(lambda: _answers(clients), what="the model is served")
        room = asyncio.Semaphore(AT_ONCE)

        async def ask(number: int) -> np.ndarray:
            async with room:
                return _vectors(await clients.ask(sixty_texts(number), 0, 60.0))

        return cls(await asyncio.gather(*(ask(number) for number in range(NUM_DIFFERENT))))

    def is_right(self, question: Question, response: Any) -> bool:
        found, right = _vectors(response), self._answers[question.number % NUM_DIFFERENT]
        return found.shape == right.shape and bool(np.abs(found - right).max() <= TOLERANCE)


async def _answers(clients: Any) -> bool:
    """Whether both gateways know it."""
    try:
        for attempt in range(2):
            await clients.ask(sixty_texts(0), attempt, 60.0)
    except grpc.aio.AioRpcError:
        return False
    return True


def _vectors(response: Any) -> np.ndarray:
    return np.stack([np.frombuffer(found.packed, "<f4") for found in response.embeddings])
