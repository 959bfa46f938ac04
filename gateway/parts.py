"""What the methods work with."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.observing.observers import CallObserver
from gateway.quotas import Quotas
from gateway.registry import Registry
from gateway.sharing.answers import Answers
from gateway.tokenization import Tokenization
from gateway.validation import Limits
from jobqueue.producer import Producer


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """Of one EmbedStream. `max_age_s` None: it may go on for ever."""

    max_chunks: int
    config_timeout_s: float
    chunk_timeout_s: float
    max_age_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One gateway's; `draining` is set once it stops, `observers` watch the chunks of streams too."""

    registry: Registry
    tokenization: Tokenization
    producer: Producer
    answers: Answers
    quotas: Quotas
    limits: Limits
    stream_limits: StreamLimits
    observers: Sequence[CallObserver]
    draining: asyncio.Event
