"""The worker's settings."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from runtime.settings import HttpUrl, ListenRange, LogLevel, Positional, Settings
from worker.model.choices import AttentionName, KernelsName


class WorkerSettings(Settings):
    """One worker process, which serves one model."""

    model_config = SettingsConfigDict(cli_prog_name="qwen3-worker")

    model: Positional[str] = Field(description="hub id or local folder of the checkpoint")
    redis: str = Field(
        description="URL of Redis: redis://, unix://, redis+sentinel:// or redis+cluster://; rediss for TLS"
    )
    task: Literal["embedding", "rerank"] | None = Field(None, description="where the checkpoint does not say it")
    name: str | None = Field(None, description="the id that requests name; else the hub id or the folder's name")
    revision: str | None = Field(None, description="hub revision to load; for a folder, what to call it")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu or cuda[:N]")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto is bfloat16 on CUDA and float32 on the CPU; float16 overflows on the 8B model"
    )
    engine: Literal["packed", "transformers", "vllm"] = Field(
        "packed", description="packed is this project's own; the others need their library installed"
    )
    attention: Literal["auto", AttentionName] = Field(
        "auto", description="attention of the packed and transformers engines; auto is the fastest that works here"
    )
    kernels: Literal["auto", KernelsName] = Field(
        "auto", description="the packed engine's other kernels; auto is the fastest that works here"
    )
    max_input_tokens: NonNegativeInt = Field(0, description="most tokens of one prompt; 0 is the model's own limit")
    max_batch_tokens: NonNegativeInt = Field(
        0,
        description="cost of a batch in tokens of linear work; 0 is 4096 on the CPU, and on CUDA what fits up to 32768",
    )
    prefix_cache_mib: NonNegativeInt = Field(
        256, description="most MiB of hot prefixes' keys and values that the packed engine keeps; 0 keeps none"
    )
    cuda_graphs: bool = Field(
        default=False, description="record batches of up to 2048 tokens as CUDA graphs, before the worker is ready"
    )
    threads: NonNegativeInt = Field(
        0, description="threads that compute on the CPU; 0 is one a core, less one for the rest from four cores on"
    )
    # Lua passes a few thousand values to one call at most, and finishing a batch passes two a job.
    max_batch_jobs: PositiveInt = Field(1000, le=1000, description="most jobs in one batch")
    max_batch_s: PositiveFloat = Field(
        600.0, description="seconds after which a batch counts as hung and ends the worker"
    )
    lease_s: PositiveFloat = Field(5.0, description="seconds of silence after which a worker counts as dead")
    dead_letters: Literal["full", "metadata"] = Field(
        "full", description="what is kept of a job that was set aside: its token ids too, which are text, or not"
    )
    scale_to_zero: bool = Field(default=False, description="announce that calls may wait while no worker is there")
    device_memory_share: float = Field(1.0, gt=0, le=1, description="share of a CUDA device's memory to stay within")
    http_listen: ListenRange | None = Field(
        None,
        description="HOST:PORT for /metrics, /livez and /readyz, or HOST:FIRST-LAST for the first free port of these; "
        "without it there are none",
    )
    otlp_endpoint: HttpUrl | None = Field(
        None,
        description="URL of an OTLP/HTTP collector for traces, such as http://localhost:4318; without it none. "
        "Batches with a traced call's job in them are traced",
    )
    log_level: LogLevel = Field("info", description="what is logged")
