"""What the methods work with."""

import asyncio
from dataclasses import dataclass

from gateway.registry import Registry
from gateway.tokenization import Tokenization
from gateway.validation import Limits
from jobqueue.producer import Producer


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One gateway's; `draining` is set once it stops."""

    registry: Registry
    tokenization: Tokenization
    producer: Producer
    limits: Limits
    draining: asyncio.Event
