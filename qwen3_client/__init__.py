"""Python client of qwen3-serve: `with Client() as client: client.embed(["a text"]).vectors`.

Client and AsyncClient have the same methods. docs/clients.md shows them by need.
"""

from qwen3_client.async_client import AsyncClient
from qwen3_client.client import Client
from qwen3_client.errors import (
    CallCancelledError,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    NonFiniteResultError,
    NotAllowedError,
    PoisonInputError,
    Qwen3Error,
    ResourceExhaustedError,
    RevisionChangedError,
    ServerFaultError,
    UnauthenticatedError,
    UnavailableError,
)
from qwen3_client.options import Encoding, InputType, Priority, ScoreType, Truncation
from qwen3_client.results import EmbedResult, HealthStatus, ModelInfo, RerankHit, TokenCounts, TokenSequence
from qwen3_client.security import Tls

__all__ = [
    "AsyncClient",
    "CallCancelledError",
    "Client",
    "DeadlineExceededError",
    "EmbedResult",
    "Encoding",
    "HealthStatus",
    "InputType",
    "InvalidRequestError",
    "ModelInfo",
    "ModelNotFoundError",
    "NonFiniteResultError",
    "NotAllowedError",
    "PoisonInputError",
    "Priority",
    "Qwen3Error",
    "RerankHit",
    "ResourceExhaustedError",
    "RevisionChangedError",
    "ScoreType",
    "ServerFaultError",
    "Tls",
    "TokenCounts",
    "TokenSequence",
    "Truncation",
    "UnauthenticatedError",
    "UnavailableError",
]
