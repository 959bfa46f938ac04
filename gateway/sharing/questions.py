"""A call whose answer comes from several places: what has been found out of it, and what is missing still."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from gateway.sharing.sequences import answer_bytes, cut, join
from jobqueue.errors import JobFailedError
from jobqueue.messages import Failure, Job, Result

Compute: TypeAlias = Callable[[Job], Awaitable[Result]]
"""Has a job computed, as Producer.submit does, and raises the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the answers to a call's sequences came from.

    `hits` from the cache, `misses` from a worker, `shared` from another call, or from the same sequence before it.
    """

    hits: int
    misses: int
    shared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A call's result, and where it came from; None for models whose answers are not kept."""

    result: Result
    sources: Sources | None = None


class Question:
    """A call by the keys of its sequences, which may be the same.

    `was_let_down`: another call that this one waited for has failed, so that it waits for nobody any more.
    """

    def __init__(self, call: Job, keys: Sequence[bytes], compute: Compute) -> None:
        self.was_let_down = False
        self._call = call
        self._keys = keys
        self._compute = compute
        self._places: dict[bytes, int] = {}  # in the call, the first of each
        for place, key in enumerate(keys):
            self._places.setdefault(key, place)
        self._answers: dict[bytes, bytes] = {}
        self._computed: list[Result] = []
        self._num_hits = 0

    @property
    def missing(self) -> list[bytes]:
        """In the order of the call, each once."""
        return [key for key in self._places if key not in self._answers]

    def add_kept(self, answers: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """Those of them that can be answers: whatever else a cache may hold counts as missing."""
        size = answer_bytes(self._call)
        found = {key: answer for key, answer in answers.items() if len(answer) == size}
        self._num_hits += len(found)
        self._answers |= found
        return found

    def add_shared(self, key: bytes, answer: bytes) -> None:
        self._answers[key] = answer

    async def compute(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Have these computed. Raises as Compute does, a failure's sequence counted within the call."""
        places = [self._places[key] for key in keys]
        job = replace(self._call, tails=tuple(self._call.tails[place] for place in places))
        try:
            result = await self._compute(job)
        except JobFailedError as error:
            raise JobFailedError(_in_call(error.failure, places)) from error
        found = dict(zip(keys, cut(result), strict=True))
        self._computed.append(result)
        self._answers |= found
        return found

    def answered(self) -> Answered:
        """Once nothing is missing."""
        answers = [self._answers[key] for key in self._keys]
        hits, misses = self._num_hits, sum(result.num_rows for result in self._computed)
        return Answered(
            result=join(self._call, answers, self._computed),
            sources=Sources(hits=hits, misses=misses, shared=len(answers) - hits - misses),
        )


def _in_call(failure: Failure, places: Sequence[int]) -> Failure:
    """The failure of a job whose sequences have these places in the call, its own sequence counted there."""
    return failure if failure.sequence < 0 else replace(failure, sequence=places[failure.sequence])
