"""A thread that says the worker lives: it renews the lease, announces the model, and reaps the dead.

It starts before the weights are loaded and outlives the last batch, so that neither is mistaken for a death. It ends
the process when a batch hangs, so that the lease expires and the jobs go to another worker.
"""

import os
import threading
from collections.abc import Callable
from typing import Self

import structlog

from jobqueue.announcements import Announcement, announce
from jobqueue.connection import SyncRedis, redis_border
from jobqueue.consumer import Consumer
from jobqueue.errors import QueueAwayError

EXIT_HUNG = 70  # EX_SOFTWARE of sysexits.h

log = structlog.get_logger()


class Heartbeat:
    """A context manager: the heart beats inside."""

    def __init__(
        self,
        client: SyncRedis,
        consumer: Consumer,
        announcement: Announcement,
        tokenizer_json: bytes,
        *,
        interval_s: float,
        beating: Callable[[], None] = lambda: None,
    ) -> None:
        """`beating` is called at every beat, whether Redis takes it or not."""
        self._redis = client
        self._consumer = consumer
        self._announcement = announcement
        self._tokenizer_json = tokenizer_json
        self._interval_s = interval_s
        self._beating = beating
        self._loading = True
        self._is_hung: Callable[[], bool] = lambda: False
        self._tokens_per_s: Callable[[], int] = lambda: 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._try_beat()  # known before the first byte of weights is read
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def loaded(self, *, is_hung: Callable[[], bool], tokens_per_s: Callable[[], int]) -> None:
        """The worker takes jobs from now on.

        `is_hung` says whether its present batch runs for too long, `tokens_per_s` how fast it is, 0 while unknown.
        """
        self._is_hung = is_hung
        self._tokens_per_s = tokens_per_s
        self._loading = False
        self._try_beat()

    def _run(self) -> None:
        """Beat until stopped. Whatever ends it otherwise ends the process: nobody would renew the lease any more."""
        try:
            while not self._stopping.wait(self._interval_s):
                self._beating()
                if self._is_hung():
                    log.critical("hung batch: leaving its jobs to another worker")
                    os._exit(EXIT_HUNG)
                self._try_beat()
        except Exception:
            log.exception("the heartbeat died")
            os._exit(1)

    def _try_beat(self) -> None:
        """A beat that Redis does not take is made up for by the next."""
        try:
            self._beat()
        except QueueAwayError as error:
            log.warning("redis away", error=str(error))

    def _beat(self) -> None:
        self._consumer.renew(loading=self._loading, tokens_per_s=self._tokens_per_s())
        self._consumer.reap()
        with redis_border():
            announce(self._redis, self._announcement, self._tokenizer_json)
