"""Who may call what: the answer to every call's first question."""

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc.aio

from gateway.callers import ANYBODY, Caller

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Identify: TypeAlias = Callable[[str, Context], Caller]
"""From a call's method, as /package.Service/Method, and its context to the caller. Raises CallError."""


def identify_nobody(method: str, context: Context) -> Caller:  # noqa: ARG001 - as Identify
    """Without access control everybody may do everything."""
    return ANYBODY
