"""Those who watch calls: logs, metrics, traces. A call's life goes on whatever they do."""

from collections.abc import Sequence
from typing import Protocol

import structlog

from gateway.calls import Call, Metadata
from gateway.errors import CallError

log = structlog.get_logger()


class CallObserver(Protocol):
    def began(self, call: Call, metadata: Metadata) -> None:
        """The first thing that happens to a call, or to a chunk of a stream, which has no metadata of its own."""
        ...

    def ended(self, call: Call, code: str, reason: str | None) -> None:
        """The last thing. `code` is a gRPC status by name, `reason` an ErrorInfo's where there is one."""
        ...


def note_end(observers: Sequence[CallObserver], call: Call, error: CallError | None, *, code: str = "OK") -> None:
    """Tell them that the call has ended: with `error`, or with `code` where there was none."""
    for observer in observers:
        observer.ended(call, error.code.name if error else code, error.reason if error else None)


class CallLog:
    """One line a call, without any text of it."""

    def began(self, call: Call, metadata: Metadata) -> None:
        """Nothing is written before the end."""

    def ended(self, call: Call, code: str, reason: str | None) -> None:
        work = call.work
        log.info(
            "call",
            method=call.method,
            code=code,
            reason=reason,
            request_id=call.request_id,
            tenant=call.caller.tenant,
            credential=call.caller.credential,
            model=work.model if work else None,
            input_tokens=work.input_tokens if work else None,
            duration_us=call.elapsed_us,
            **({} if call.chunk_id is None else {"chunk_id": call.chunk_id}),
            **({} if call.trace is None else {"trace_id": call.trace.trace_id}),
        )
