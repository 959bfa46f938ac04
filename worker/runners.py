"""Which engine serves: each is loaded only when it is asked for."""

from runtime.errors import SettingError
from worker.config import WorkerSettings
from worker.model.checkpoint import Checkpoint
from worker.packed_runner import PackedRunner
from worker.placement import Placement
from worker.runner import ModelRunner

MIB = 1 << 20


def make_runner(checkpoint: Checkpoint, placement: Placement, settings: WorkerSettings) -> ModelRunner:
    """Load the model into its engine; raises SettingError for a setting that the engine does not have."""
    if settings.engine == "packed":
        return PackedRunner(
            checkpoint,
            placement,
            attention=settings.attention,
            kernels=settings.kernels,
            prefix_cache_bytes=settings.prefix_cache_mib * MIB,
            cuda_graphs=settings.cuda_graphs,
        )
    for name in ("kernels", "cuda_graphs", "prefix_cache_mib"):
        if name in settings.model_fields_set:
            raise SettingError(f"--{name.replace('_', '-')}: belongs to the packed engine, not to {settings.engine}")
    if settings.engine == "transformers":
        from worker.transformers_runner import TransformersRunner  # noqa: PLC0415 - its library is optional

        return TransformersRunner(checkpoint, placement, attention=settings.attention)
    if "attention" in settings.model_fields_set:
        raise SettingError("--attention: the vllm engine chooses its own")
    from worker.vllm_runner import VllmRunner  # noqa: PLC0415 - likewise

    return VllmRunner(
        checkpoint,
        placement,
        max_input_tokens=settings.max_input_tokens or checkpoint.max_input_tokens,
        device_memory_share=settings.device_memory_share,
    )
