"""Keeps one worker alive: starts it, and starts it again as the policy says."""

import asyncio
import time
from collections.abc import Mapping

import structlog

from runtime.children import Child, Program, StopRequest
from runtime.restarts import RestartPolicy

_log = structlog.get_logger()


class WorkerKeeper:
    """One worker's place. `ready` is set once its first process is ready."""

    def __init__(self, program: Program, environment: Mapping[str, str], policy: RestartPolicy) -> None:
        self.ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._program = program
        self._environment = environment
        self._policy = policy
        self._child: Child | None = None

    async def keep_alive(self) -> None:
        """Never returns. Raises ServiceError once a worker dies before it is ready, or dies too often."""
        deaths_s: list[float] = []
        while True:
            child = self._child = await Child.start(self._program, self._environment)
            self._note_ready(await child.until_ready())
            status = await child.exited()
            deaths_s.append(time.monotonic())
            delay_s = self._policy.delay_s(deaths_s)
            if delay_s is None:
                raise child.death(f"for the {self._policy.max_deaths}th time in {self._policy.window_s:.0f} s")
            _log.warning("worker_died", child=child.name, exit_status=status, restart_in_s=delay_s)
            await asyncio.sleep(delay_s)

    async def stop(self, stop: StopRequest, limit_s: float) -> None:
        """Stop whichever process is there."""
        if self._child:
            await self._child.stop(hurry=stop.hurry, limit_s=limit_s)

    def _note_ready(self, words: str) -> None:
        if not self.ready.done():
            self.ready.set_result(words)
