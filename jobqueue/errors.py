"""What can go wrong with the queue, named by whose fault it is."""

from jobqueue.messages import Failure


class QueueError(Exception):
    """Base of the errors below."""


class QueueFullError(QueueError):
    """The lane has no room for the call's tokens now; worth another try in `retry_s` seconds."""

    def __init__(self, message: str, *, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class DrainingError(QueueError):
    """An operator lets the queue run empty; try elsewhere, or later."""


class NoWorkerError(QueueError):
    """No worker would take the call's jobs; try later."""


class QueueAwayError(QueueError):
    """Redis cannot be reached or cannot answer now; try later."""


class OutcomeUnknownError(QueueAwayError):
    """No reply came: what was asked of Redis may have been done all the same."""


class UnsuitableServerError(QueueError):
    """The server at the URL may lose jobs or lacks what the protocol needs; the operator must act."""


class CallTooLargeError(QueueError):
    """The call alone is more than the lane ever admits; it must be split."""


class JobFailedError(QueueError):
    """A job of the call ended without a result, for the reason in `failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
