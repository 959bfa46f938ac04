"""transformers' own model over packed batches: the oracle, and the way to serve a model whose forward pass differs.

The model is told of no padding and no mask: its attention is replaced, through transformers' own registry, by the same
packed attention that our engine uses. A name that is absent from the mask registry gets no mask made for it.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from jobqueue.messages import TokenIds
from runtime.errors import SettingError
from worker.model.attention import Attention, select_attention
from worker.model.checkpoint import Checkpoint
from worker.placement import Placement
from worker.runner import RunnerStats, Waiting

_ATTENTION = "qwen3_serve_packed"


class TransformersRunner:
    """`AutoModel` of the checkpoint's folder, each batch as one sequence with positions that start anew."""

    engine = "transformers"
    kernels = "transformers"

    def __init__(self, checkpoint: Checkpoint, placement: Placement, *, attention: str = "auto") -> None:
        """Load the model. Raises SettingError where transformers is not installed."""
        try:
            from transformers import AttentionInterface, AutoModel  # noqa: PLC0415 - only this engine needs it
        except ImportError as error:
            raise SettingError("--engine transformers: transformers is not installed") from error
        self.attention, attend = select_attention(placement.device, placement.dtype, attention)
        AttentionInterface.register(_ATTENTION, _PackedAttention(attend))
        self._model = AutoModel.from_pretrained(
            checkpoint.folder,
            dtype=placement.dtype,
            attn_implementation=_ATTENTION,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        self._model.to(placement.device).eval()
        self._device = placement.device
        self._num_tokens = 0

    @torch.inference_mode()
    def start(self, sequences: Sequence[TokenIds], prefixes: Sequence[TokenIds] = ()) -> Waiting:  # noqa: ARG002 - nothing is kept
        borders = torch.tensor([0, *accumulate(map(len, sequences))], dtype=torch.int32, device=self._device)
        longest = max(map(len, sequences))
        out = self._model(
            input_ids=torch.tensor([[token for ids in sequences for token in ids]], device=self._device),
            position_ids=torch.tensor([[at for ids in sequences for at in range(len(ids))]], device=self._device),
            use_cache=False,
            packed=(borders, borders, longest, longest),
        )
        hidden = out.last_hidden_state[0, borders[1:].long() - 1].float().cpu()
        self._num_tokens += sum(map(len, sequences))
        return lambda: hidden

    def release_memory(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def count_computed(self, sequences: Sequence[TokenIds]) -> int:
        return sum(map(len, sequences))

    def stats(self) -> RunnerStats:
        return RunnerStats(num_input_tokens=self._num_tokens, num_computed_tokens=self._num_tokens)


class _PackedAttention:
    """As transformers calls attention: (1, heads, tokens, head_dim) in, (1, tokens, heads, head_dim) out."""

    def __init__(self, attend: Attention) -> None:
        self._attend = attend

    def __call__(
        self,
        _module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        _mask: None,
        *,
        packed: tuple[Tensor, Tensor, int, int],
        **_kwargs: Any,
    ) -> tuple[Tensor, None]:
        q, k, v = (heads.squeeze(0).transpose(0, 1) for heads in (query, key, value))
        return self._attend(q, k, v, *packed).unsqueeze(0), None
