"""What is known of a call: its id, who makes it, and the point in time by which it must be answered."""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc.aio

from gateway.identity.callers import ANYBODY, Caller
from gateway.observing.spans import CallTrace
from gateway.sharing.questions import Sources
from jobqueue.lanes import Lane
from jobqueue.messages import Result

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

# Sent by retry policies (gRPC proposal A6), and by clients that retry by hand, whom gRPC does not let send the first.
PREVIOUS_ATTEMPTS = ("grpc-previous-rpc-attempts", "x-previous-rpc-attempts")
REQUEST_ID = re.compile(r"[\x20-\x7e]{1,128}")
REQUEST_ID_KEY = "x-request-id"  # of the caller's id in a stream's metadata, and of every call's in its trailers


@dataclass(slots=True, kw_only=True)
class Call:
    """What is known of a call, filled in as it goes.

    `deadline` is in seconds of the event loop's clock; uvloop's counts whole milliseconds, so `started` is not.
    """

    method: str  # /package.Service/Method
    request_id: str
    started: float  # of time.perf_counter()
    deadline: float
    is_retry: bool = False
    identify: Callable[[], Caller] = lambda: ANYBODY  # raises CallError; what it says may change during a stream
    caller: Caller = ANYBODY
    work: "Work | None" = None
    result: Result | None = None
    sources: Sources | None = None  # of the result, for models whose answers are kept
    chunk_id: int | None = None  # of a stream's chunk
    trace: CallTrace | None = None  # where it is traced

    @classmethod
    def begin(cls, method: str, context: Context, *, default_timeout_s: float) -> "Call":
        """With an id of ours, and the caller's deadline, or the default one. Its message may not have come yet."""
        remaining_s = context.time_remaining()
        now = asyncio.get_running_loop().time()
        return cls(
            method=method,
            request_id=secrets.token_hex(16),
            started=time.perf_counter(),
            is_retry=any(name in PREVIOUS_ATTEMPTS for name, _ in context.invocation_metadata() or ()),
            deadline=now + (default_timeout_s if remaining_s is None else remaining_s),
        )

    def take_id(self, sent: object) -> None:
        """The caller's, where it sent one that may be shown."""
        if isinstance(sent, str) and REQUEST_ID.fullmatch(sent):
            self.request_id = sent

    @property
    def elapsed_us(self) -> int:
        return int((time.perf_counter() - self.started) * 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a call asked of a model, for those who count: `input_tokens` after truncation, prefix included.

    `dimensions` of its vectors, 0 where it gets none.
    """

    model: str
    lane: Lane
    num_inputs: int
    input_tokens: int
    tokenize_us: int
    dimensions: int = 0


current_call: ContextVar[Call] = ContextVar("current_call")
