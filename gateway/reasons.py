"""Why calls fail: the reasons that errors give in their google.rpc.ErrorInfo. Clients know them: none is renamed."""

from enum import Enum

from grpc import StatusCode


class Reason(Enum):
    """`name` is what the client reads, `code` the status that goes with it."""

    INVALID_FIELD = StatusCode.INVALID_ARGUMENT, "a field is wrong, or its list too long for one message"
    MALFORMED_REQUEST = StatusCode.INVALID_ARGUMENT, "the bytes are not the method's message"
    WRONG_TASK = StatusCode.INVALID_ARGUMENT, "the model does something else"
    MODEL_NOT_FOUND = StatusCode.NOT_FOUND, "no such model is served"
    UNKNOWN_SERVICE = StatusCode.NOT_FOUND, "health is asked of something that is not served"
    UNAUTHENTICATED = StatusCode.UNAUTHENTICATED, "no credentials, or wrong ones"
    METHOD_NOT_ALLOWED = StatusCode.PERMISSION_DENIED, "the tenant may not call this method"
    MODEL_NOT_ALLOWED = StatusCode.PERMISSION_DENIED, "the tenant may not use this model"
    PRIORITY_NOT_ALLOWED = StatusCode.PERMISSION_DENIED, "the tenant may not use this lane"
    QUOTA_REQUESTS = StatusCode.RESOURCE_EXHAUSTED, "the tenant's requests per second"
    QUOTA_TOKENS = StatusCode.RESOURCE_EXHAUSTED, "the tenant's tokens per second"
    QUOTA_IN_FLIGHT = StatusCode.RESOURCE_EXHAUSTED, "the tenant's calls in flight"
    QUEUE_FULL = StatusCode.UNAVAILABLE, "the model has as much work as it can do soon"
    QUEUE_AWAY = StatusCode.UNAVAILABLE, "Redis cannot be reached"
    NO_WORKER = StatusCode.UNAVAILABLE, "nobody serves the model now"
    OVERLOADED = StatusCode.UNAVAILABLE, "the gateway has as many calls as it takes"
    DRAINING = StatusCode.UNAVAILABLE, "the gateway or the model is being stopped"
    STREAM_AGED = StatusCode.UNAVAILABLE, "the stream is as old as a connection may be"
    DEADLINE_EXCEEDED = StatusCode.DEADLINE_EXCEEDED, "the call's deadline, or the server's own, has passed"
    POISON_INPUT = StatusCode.INTERNAL, "the texts ended their worker three times"
    NON_FINITE_RESULT = StatusCode.INTERNAL, "the model's result was not a number"
    OUT_OF_MEMORY = StatusCode.INTERNAL, "the text does not fit into the worker's memory, even alone"
    INVALID_JOB = StatusCode.INTERNAL, "the worker cannot read the job: it is older than the gateway"
    BUG = StatusCode.INTERNAL, "a mistake of ours, logged with the request id"

    def __init__(self, code: StatusCode, meaning: str) -> None:
        self.code = code
        self.meaning = meaning
