"""qwen3-serve's settings."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from runtime.settings import Settings
from standalone.models import ModelSpec


class ServeSettings(Settings):
    """Serve models on this machine: a private Redis, a gateway and workers, started and watched together.

    Settings of the gateway and of the workers that have no flag here are read from their QWEN3_... variables.
    """

    model_config = SettingsConfigDict(cli_prog_name="qwen3-serve")

    models: CliPositionalArg[list[str]] = Field(
        min_length=1,
        description="models to serve: a hub id or a local folder, with embedding: or rerank: before it where the "
        "checkpoint does not tell",
    )
    listen: str = Field("127.0.0.1:50051", description="HOST:PORT to listen on; port 0 takes a free one")
    redis: str = Field("", description="URL of a Redis server to use in place of a private one")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="of weights and activations")
    workers_per_model: PositiveInt = Field(1, description="worker processes per model")
    stop_limit_s: PositiveFloat = Field(
        90.0, description="seconds that each process may take to stop before it is killed"
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError("HOST:PORT is expected")
        return value

    @field_validator("models")
    @classmethod
    def _check_models(cls, value: list[str]) -> list[str]:
        names = [ModelSpec.parse(text).name for text in value]
        if len(set(names)) < len(names):
            raise ValueError("a model is named twice; --workers-per-model starts more workers")
        return value

    @property
    def model_specs(self) -> list[ModelSpec]:
        return [ModelSpec.parse(text) for text in self.models]
