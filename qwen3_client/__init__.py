"""Python client of qwen3-serve: `with Client() as client: client.embed(["a text"]).vectors`."""

from qwen3_client.client import Client
from qwen3_client.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    NotAllowedError,
    Qwen3Error,
    ResourceExhaustedError,
    RevisionChangedError,
    ServerFaultError,
    UnauthenticatedError,
    UnavailableError,
)
from qwen3_client.results import EmbedResult, HealthStatus, ModelInfo, RerankHit, TokenCounts

__all__ = [
    "Client",
    "DeadlineExceededError",
    "EmbedResult",
    "HealthStatus",
    "InvalidRequestError",
    "ModelInfo",
    "ModelNotFoundError",
    "NotAllowedError",
    "Qwen3Error",
    "RerankHit",
    "ResourceExhaustedError",
    "RevisionChangedError",
    "ServerFaultError",
    "TokenCounts",
    "UnauthenticatedError",
    "UnavailableError",
]
