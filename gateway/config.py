"""The gateway's settings."""

from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from runtime.settings import ListenAddress, LogLevel, Settings


class GatewaySettings(Settings):
    """One gateway process. Every flag is also a variable: --bulk-share is QWEN3_BULK_SHARE."""

    model_config = SettingsConfigDict(cli_prog_name="qwen3-gateway")

    redis: str = Field(
        description="URL of Redis: redis://, unix://, redis+sentinel:// or redis+cluster://; rediss for TLS"
    )
    listen: ListenAddress = Field("127.0.0.1:50051", description="HOST:PORT to listen on; port 0 takes a free one")
    default_embedding_model: str = Field("", description="model meant by an empty name; else the only one served")
    default_rerank_model: str = Field("", description="reranker meant by an empty name; else the only one served")
    pin: Annotated[list[str], NoDecode] = Field(
        [], description="MODEL@REVISION,... to send the models' calls to, instead of the newest ones"
    )
    max_embed_inputs: PositiveInt = Field(256, description="most texts in one Embed call")
    max_rerank_documents: PositiveInt = Field(1000, description="most documents in one Rerank call")
    max_queue_tokens: PositiveInt = Field(4_000_000, description="most tokens that wait or run in one model's queue")
    max_queue_jobs: PositiveInt = Field(50_000, description="most jobs that wait or run in one model's queue")
    bulk_share: float = Field(0.8, gt=0, le=1, description="share of the queue's limits that bulk work may fill")
    max_wait_s: PositiveFloat = Field(
        10.0, description="seconds that interactive work may have to wait; what would wait longer is refused"
    )
    max_job_tokens: PositiveInt = Field(
        4096, description="tokens of one job; a larger call is split, a longer text not"
    )
    max_text_bytes: PositiveInt = Field(1_048_576, description="most bytes of one text, whatever truncation says")
    max_calls_in_flight: PositiveInt = Field(20_000, description="most unary calls at once; more are sent elsewhere")
    default_timeout_s: PositiveFloat = Field(30.0, description="deadline, s, of a call whose client sets none")
    drain_grace_s: PositiveFloat = Field(30.0, description="seconds that calls in flight get after SIGTERM")
    tokenizer_threads: PositiveInt = Field(2, description="threads that tokenise")
    log_level: LogLevel = Field("info", description="what is logged")

    @field_validator("pin", mode="before")
    @classmethod
    def _split_pin(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("pin")
    @classmethod
    def _check_pin(cls, value: list[str]) -> list[str]:
        for queue in value:
            if queue.count("@") != 1:
                raise ValueError(f"{queue!r} is not MODEL@REVISION")
        return value
