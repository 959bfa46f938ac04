"""What calls of this process are finding out now, so that others may wait for it instead of asking the same."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from jobqueue.lanes import Lane

Tell: TypeAlias = Callable[[Mapping[bytes, bytes]], None]
Answering: TypeAlias = "asyncio.Future[bytes | None]"
"""Of one sequence. None: it went wrong. Cancelled: who asked for it has left. Waiters must not cancel it."""


class InFlight:
    """A table of who is being answered, for one event loop.

    A lane is for itself: an interactive call must not wait for what stands behind bulk work.
    """

    def __init__(self) -> None:
        self._answering: dict[tuple[Lane, bytes], Answering] = {}

    def among(self, lane: Lane, keys: Sequence[bytes]) -> dict[bytes, Answering]:
        """Those of the sequences that others have asked for."""
        return {key: found for key in keys if (found := self._answering.get((lane, key)))}

    @contextlib.contextmanager
    def asked(self, lane: Lane, keys: Sequence[bytes]) -> Iterator[Tell]:
        """For as long as the context lasts, others may wait for what is told of these sequences.

        Whoever still waits at its end learns how it ended. Of what somebody else has asked for, nobody waits here.
        """
        loop = asyncio.get_running_loop()
        ours: dict[bytes, Answering] = {}
        for key in keys:
            if (lane, key) not in self._answering:
                ours[key] = self._answering[lane, key] = loop.create_future()
        try:
            yield lambda answers: _tell(ours, answers)
        except Exception:
            _tell(ours, dict.fromkeys(ours))
            raise
        finally:
            for key, answering in ours.items():
                del self._answering[lane, key]
                answering.cancel()  # does nothing to one that has been told


def _tell(waiting: Mapping[bytes, Answering], answers: Mapping[bytes, bytes | None]) -> None:
    for key, answer in answers.items():
        if key in waiting and not waiting[key].done():
            waiting[key].set_result(answer)
