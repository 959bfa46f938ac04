"""Splitting a call into jobs, and joining their results: pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from jobqueue.messages import Job, Result


def split(call: Job, *, max_tokens: int) -> list[Job]:
    """Cut a call's sequences, in order, into jobs of at most `max_tokens` tokens; a longer sequence is a job alone."""
    return [replace(call, tails=call.tails[cut.start : cut.stop]) for cut in _cuts(call.lengths, max_tokens=max_tokens)]


def _cuts(lengths: Sequence[int], *, max_tokens: int) -> Iterator[range]:
    start, total = 0, 0
    for index, length in enumerate(lengths):
        if index > start and total + length > max_tokens:
            yield range(start, index)
            start, total = index, 0
        total += length
    yield range(start, len(lengths))


def merge(results: Sequence[Result], *, last: Result) -> Result:
    """The call's result from its jobs' results in order; times are those of the job that finished last."""
    return Result(
        rows=b"".join(result.rows for result in results),
        num_rows=sum(result.num_rows for result in results),
        scales=b"".join(result.scales for result in results),
        computed_tokens=sum(result.computed_tokens for result in results),
        queue_us=last.queue_us,
        compute_us=last.compute_us,
    )
