"""Splitting a call into jobs, and joining their results: pure."""

from collections.abc import Sequence
from dataclasses import replace

from jobqueue.cost import split_by_size
from jobqueue.messages import Job, Result


def split(call: Job, *, max_tokens: int) -> list[Job]:
    """Cut a call's sequences, in order, into jobs of at most `max_tokens`; a longer sequence is a job alone."""
    groups = list(split_by_size(call.lengths, max_tokens))
    if len(groups) == 1:
        return [call]
    return [replace(call, tails=call.tails[group.start : group.stop]) for group in groups]


def merge(results: Sequence[Result], *, last: Result) -> Result:
    """The call's result from its jobs' results in order; times are those of the job that finished last."""
    if len(results) == 1:
        return last
    return Result(
        rows=b"".join(result.rows for result in results),
        num_rows=sum(result.num_rows for result in results),
        scales=b"".join(result.scales for result in results),
        computed_tokens=sum(result.computed_tokens for result in results),
        queue_us=last.queue_us,
        compute_us=last.compute_us,
    )
