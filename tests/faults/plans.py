"""Which workers a row has: two that embed and one that reranks."""

import sys
from collections.abc import Sequence

from jobqueue.messages import Operation
from tests.faults.kill_points import VARIABLE
from tests.faults.service import WorkerPlan
from tests.faults.stage import Files, Plan, Size

PLACES = (Operation.EMBED, Operation.EMBED, Operation.RERANK)
OVERLOAD, OVERLOAD_S = 10, 60.0
MEAN_CALL_TOKENS = 300  # of questions.embedding_only
CLOCK_OFFSETS_S = (3600, -3600, 3600)


def echo(files: Files, _: Size) -> Sequence[WorkerPlan]:
    return [_worker(files, operation) for operation in PLACES]


def echo_that_dies_at(point: str) -> Plan:
    """Every worker kills itself at every so-manieth passing of the point."""

    def plan(files: Files, size: Size) -> Sequence[WorkerPlan]:
        env = {VARIABLE: f"{point}:{max(20, size.num_calls // 40)}"}
        return [_worker(files, operation, env=env) for operation in PLACES]

    return plan


def echo_with_wrong_clocks(files: Files, _: Size) -> Sequence[WorkerPlan]:
    return [
        _worker(files, operation, f"--clock-offset-s={offset_s}")
        for operation, offset_s in zip(PLACES, CLOCK_OFFSETS_S, strict=True)
    ]


def echo_that_notices_a_hang(files: Files, _: Size) -> Sequence[WorkerPlan]:
    return [_worker(files, operation, "--max-batch-s", "1") for operation in PLACES]


def overloaded(files: Files, size: Size) -> Sequence[WorkerPlan]:
    """Two embedding workers that together do a tenth of what is asked of them."""
    return embedders(files, 2, tokens_per_s=overload_capacity(size) / 2)


def embedders(files: Files, num: int, *, tokens_per_s: float) -> Sequence[WorkerPlan]:
    """Embedding workers of this speed each."""
    options = ["--tokens-per-s", str(tokens_per_s), "--max-batch-tokens", "600"]
    return [_worker(files, Operation.EMBED, *options) for _ in range(num)]


def overload_capacity(size: Size) -> float:
    """Tokens per second of all workers."""
    return size.num_calls * MEAN_CALL_TOKENS / OVERLOAD_S / OVERLOAD


def _worker(files: Files, operation: Operation, *options: str, env: dict[str, str] | None = None) -> WorkerPlan:
    command = [sys.executable, "-m", "tests.faults.echo_worker", operation.name, *options]
    command += ["--tokenizer", str(files.tokenizer), "--ledger", str(files.ledger)]
    return WorkerPlan(command=tuple(command), env=env or {})
