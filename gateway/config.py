"""The gateway's settings."""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, FilePath, PositiveInt, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from runtime.settings import CommaSeparated, HttpUrl, ListenAddress, LogLevel, Settings, is_loopback

MAX_INT32 = 2**31 - 1  # what gRPC takes
MAX_S = 1_000_000  # gRPC takes MAX_INT32 ms, and is given the sum of two settings

Seconds = Annotated[float, Field(ge=0.001, le=MAX_S)]


class GatewaySettings(Settings):
    """One gateway process."""

    model_config = SettingsConfigDict(cli_prog_name="qwen3-gateway")

    redis: str = Field(
        description="URL of Redis: redis://, unix://, redis+sentinel:// or redis+cluster://; rediss for TLS"
    )
    listen: ListenAddress = Field("127.0.0.1:50051", description="HOST:PORT to listen on; port 0 takes a free one")
    http_listen: ListenAddress | None = Field(
        None, description="HOST:PORT for /metrics, /livez and /readyz; without it there are none"
    )
    processes: PositiveInt = Field(1, description="processes that listen on the same port")
    insecure: bool = Field(default=False, description="listen without TLS beyond this machine")

    tls_cert: FilePath | None = Field(None, description="PEM file of the server's certificates; read anew on change")
    tls_key: FilePath | None = Field(None, description="PEM file of the certificate's private key")
    tls_client_ca: FilePath | None = Field(
        None,
        description="PEM file of the authorities whose certificates clients must show; without it none is asked",
    )
    access: FilePath | None = Field(
        None,
        description="TOML file of tenants, API keys and identities, read anew on change; without it everybody may do "
        "everything",
    )
    access_toml: SecretStr | None = Field(None, description="in place of --access: what stands in such a file")
    open_services: CommaSeparated[frozenset[Literal["health", "reflection"]]] = Field(
        frozenset({"health"}), description="health,reflection: what needs no credentials where there is access control"
    )
    admin: bool = Field(default=False, description="serve channelz, gRPC's view of its connections, to operators")

    default_embedding_model: str = Field("", description="model meant by an empty name; else the only one served")
    default_rerank_model: str = Field("", description="reranker meant by an empty name; else the only one served")
    pin: CommaSeparated[list[str]] = Field(
        [], description="MODEL@REVISION,... to send the models' calls to, instead of the newest ones"
    )
    await_models: CommaSeparated[list[str]] = Field(
        [], description="MODEL,... that must be served before the gateway says that it is ready; it listens before"
    )
    cache: CommaSeparated[list[str]] = Field(
        [],
        description="MODEL,... whose answers are kept, and whose equal texts in flight are computed once; * is all; "
        "without it the other settings of the cache do nothing",
    )
    cache_ttl_s: float = Field(3600.0, ge=0.001, le=MAX_INT32, description="seconds that an answer is kept")
    cache_max_mib: PositiveInt = Field(256, description="most MiB of answers kept in Redis, of each revision")
    cache_scope: Literal["tenant", "all"] = Field(
        "tenant", description="all: tenants are answered from each other's texts, which lets them learn what others ask"
    )

    max_embed_inputs: PositiveInt = Field(256, description="most texts in one Embed call, or in a chunk of EmbedStream")
    max_rerank_documents: PositiveInt = Field(1000, description="most documents in one Rerank call")
    max_text_bytes: PositiveInt = Field(1_048_576, description="most bytes of one text, whatever truncation says")
    max_request_bytes: PositiveInt = Field(33_554_432, le=MAX_INT32, description="most bytes of one message")
    max_request_tokens: PositiveInt = Field(
        1_000_000, description="most tokens of one call, or of a chunk of EmbedStream"
    )
    max_stream_chunks: PositiveInt = Field(16, description="most chunks of one EmbedStream in flight; more wait unread")
    stream_chunk_timeout_s: Seconds = Field(
        300.0, description="deadline, s, of each chunk of a stream, from when it was read"
    )
    max_calls_in_flight: PositiveInt = Field(20_000, description="most calls at once; more are sent elsewhere")
    max_concurrent_streams: PositiveInt = Field(
        20_000, le=MAX_INT32, description="most calls at once on one connection; the client's library makes more wait"
    )
    max_connection_age_s: Seconds | None = Field(
        None, description="seconds after which a connection is closed in order, so that clients spread anew"
    )
    default_timeout_s: Seconds = Field(
        30.0, description="deadline, s, of a call whose client sets none, and of every call's first message"
    )
    lame_duck_s: float = Field(
        0.5,
        ge=0,
        le=MAX_S,
        description="seconds that new calls are served after SIGTERM, while health says NOT_SERVING",
    )
    drain_grace_s: Seconds = Field(30.0, description="seconds that calls in flight then get")

    max_queue_tokens: PositiveInt = Field(4_000_000, description="most tokens that wait or run in one model's queue")
    max_queue_jobs: PositiveInt = Field(50_000, description="most jobs that wait or run in one model's queue")
    bulk_share: float = Field(0.8, gt=0, le=1, description="share of the queue's limits that bulk work may fill")
    max_wait_s: Seconds = Field(
        10.0, description="seconds that interactive work may have to wait; what would wait longer is refused"
    )
    max_job_tokens: PositiveInt = Field(
        4096, description="tokens of one job; a larger call is split, a longer text not"
    )
    tokenizer_threads: PositiveInt = Field(2, description="threads that tokenise")

    otlp_endpoint: HttpUrl | None = Field(
        None, description="URL of an OTLP/HTTP collector for traces, such as http://localhost:4318; without it none"
    )
    trace_share: float = Field(
        0.01, ge=0, le=1, description="share of calls that are traced where the caller does not decide it"
    )
    log_level: LogLevel = Field("info", description="what is logged; info has a line for each call")

    @model_validator(mode="after")
    def _check_security(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert (QWEN3_TLS_CERT) and --tls-key (QWEN3_TLS_KEY) go together")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("--tls-client-ca (QWEN3_TLS_CLIENT_CA) needs --tls-cert and --tls-key")
        if self.access and self.access_toml:
            raise ValueError("--access (QWEN3_ACCESS) and --access-toml (QWEN3_ACCESS_TOML) are the same thing twice")
        if self.admin and not (self.access or self.access_toml):
            raise ValueError("--admin (QWEN3_ADMIN) needs --access or --access-toml: it shows who is connected")
        if not (self.tls_cert or self.insecure or is_loopback(self.listen)):
            raise ValueError(
                f"--listen (QWEN3_LISTEN) = {self.listen!r}: is beyond this machine, which needs --tls-cert and "
                "--tls-key, or --insecure"
            )
        return self

    @field_validator("pin")
    @classmethod
    def _check_pin(cls, value: list[str]) -> list[str]:
        for queue in value:
            if queue.count("@") != 1:
                raise ValueError(f"{queue!r} is not MODEL@REVISION")
        for model, times in Counter(queue.partition("@")[0] for queue in value).items():
            if times > 1:
                raise ValueError(f"{model!r} is pinned more than once")
        return value
