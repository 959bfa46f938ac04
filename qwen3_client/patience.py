"""When bulk work that the service could not take on is begun again, and when it is given up. No I/O and no clock."""

import random

from qwen3_client.errors import (
    CallCancelledError,
    DeadlineExceededError,
    Qwen3Error,
    ResourceExhaustedError,
    UnavailableError,
)

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 5.0


class Patience:
    """How long to go on without an answer. Times in s."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.renew()

    def renew(self) -> None:
        """There was an answer."""
        self.left_s = self._timeout_s
        self._num_losses = 0
        self._loss: Qwen3Error | None = None

    def spend(self, waited_s: float) -> None:
        """There was none for so long."""
        self.left_s -= waited_s

    def exhausted(self, request_id: str) -> Qwen3Error:
        """What is raised once none is left: why it was begun again, else that there was no answer."""
        message = f"no answer within {self._timeout_s:g} s"
        return self._loss or DeadlineExceededError(message, code="DEADLINE_EXCEEDED", request_id=request_id)

    def wait_s(self, error: Qwen3Error) -> float:
        """How long to wait before what `error` ended is begun again. Raises `error` where it is not."""
        wait_s = self._backoff_s(error.retry_after_s)
        if not _will_pass(error) or wait_s >= self.left_s:
            raise error
        self._loss = error
        self._num_losses += 1
        self.left_s -= wait_s
        return wait_s

    def _backoff_s(self, asked_s: float | None) -> float:
        """At first what the server asks for; a server that asks for nothing again and again is not hurried."""
        if asked_s is not None and not self._num_losses:
            return asked_s
        backoff_s = min(FIRST_WAIT_S * 2.0 ** min(self._num_losses, 10), MAX_WAIT_S)
        spread = random.uniform(0.8, 1.2)  # noqa: S311 - so that clients do not come back in step
        return max(backoff_s * spread, asked_s or 0.0)


def _will_pass(error: Qwen3Error) -> bool:
    """CANCELLED is what grpc says of a call that reaches a server in the moment in which it stops."""
    if isinstance(error, ResourceExhaustedError):  # a quota; a message that is too large never gets smaller
        return error.retry_after_s is not None
    return isinstance(error, (UnavailableError, CallCancelledError))
