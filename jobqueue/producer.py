"""The gateway's end: admit a call's jobs, wait for their answers, and withdraw what nobody waits for any more."""

import asyncio
import secrets
from types import TracebackType
from typing import Self

from jobqueue.channel import Channel
from jobqueue.chunks import split
from jobqueue.connection import AsyncRedis
from jobqueue.errors import CallTooLargeError
from jobqueue.limits import QueueLimits
from jobqueue.messages import Result
from jobqueue.pending import Submission


class Producer:
    """One gateway process's channels to every queue; an async context manager."""

    def __init__(self, client: AsyncRedis, limits: QueueLimits) -> None:
        self._redis = client
        self._limits = limits
        self._gateway = secrets.token_hex(8)
        self._channels: dict[str, Channel] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Withdrawals are finished, channels closed. A channel that died by itself has ended the whole context."""
        await asyncio.gather(*(channel.settle() for channel in self._channels.values()))
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    async def submit(self, submission: Submission) -> Result:
        """The call's result: its sequences in order, its times those of the job that finished last.

        Raises CallTooLargeError, QueueFullError, DrainingError, NoWorkerError, QueueAwayError, or JobFailedError with
        the call's own sequence number. When it raises or is cancelled, the call's waiting jobs leave the queue.
        """
        jobs = split(submission.call, max_tokens=self._limits.max_job_tokens)
        self._check_size(submission, len(jobs))
        return await self._channel(submission.queue).submit(submission, jobs)

    def _check_size(self, submission: Submission, num_jobs: int) -> None:
        num_tokens = sum(submission.call.lengths)
        max_tokens, max_jobs = self._limits.of(submission.lane)
        if num_tokens > max_tokens:
            raise CallTooLargeError(f"{num_tokens} tokens in one call, the queue holds {max_tokens}; split the call")
        if num_jobs > max_jobs:
            raise CallTooLargeError(f"the call makes {num_jobs} jobs, the queue holds {max_jobs}; split the call")

    def _channel(self, queue: str) -> Channel:
        channel = self._channels.get(queue)
        if channel is None or channel.has_ended:
            channel = self._channels[queue] = Channel(self._redis, queue, self._gateway, self._limits)
            task = self._tasks.create_task(channel.run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return channel
