"""qwen3-serve's settings."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from pydantic_settings import SettingsConfigDict

from runtime.settings import CommaSeparated, ListenAddress, LogLevel, Positional, Settings
from standalone.models import ModelSpec


class ServeSettings(Settings):
    """Serve models on this machine: a private Redis, a gateway and workers, started and watched together.

    Settings of the gateway and of the workers that have no flag here are read from their QWEN3_... variables,
    and from their own tables in the settings file.
    """

    model_config = SettingsConfigDict(cli_prog_name="qwen3-serve")

    models: Positional[CommaSeparated[list[str]]] = Field(
        min_length=1,
        description="models to serve: a hub id or a local folder, with embedding: or rerank: before it where the "
        "checkpoint does not tell",
    )
    listen: ListenAddress = Field("127.0.0.1:50051", description="HOST:PORT to listen on; port 0 takes a free one")
    insecure: bool = Field(default=False, description="listen without TLS beyond this machine")
    redis: str = Field("", description="URL of a Redis server to use in place of a private one")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="of weights and activations")
    workers_per_model: PositiveInt = Field(1, description="worker processes per model")
    http_listen: ListenAddress | None = Field(
        None,
        description="HOST:PORT for the gateway's /metrics, /livez and /readyz; workers have theirs at the next ports",
    )
    stop_limit_s: PositiveFloat = Field(
        90.0, description="seconds that each process may take to stop before it is killed"
    )
    log_level: LogLevel = Field("info", description="what is logged")

    @field_validator("models")
    @classmethod
    def _check_models(cls, value: list[str]) -> list[str]:
        specs = [ModelSpec.parse(text) for text in value]
        if len({spec.name for spec in specs}) < len(specs):
            raise ValueError("a model is named twice; --workers-per-model starts more workers")
        ids = [spec.served_id for spec in specs]
        twice = next((id_ for id_ in ids if ids.count(id_) > 1), None)
        if twice is not None:
            raise ValueError(f"two models would be served as {twice!r}: give their folders different names")
        return value

    @property
    def model_specs(self) -> list[ModelSpec]:
        return [ModelSpec.parse(text) for text in self.models]
