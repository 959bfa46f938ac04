"""What --attention and --kernels may be, the fastest first; without torch, so that --help is quick."""

from typing import Literal, TypeAlias

AttentionName: TypeAlias = Literal["flash-attn-3", "flash-attn", "torch-varlen", "sdpa"]
KernelsName: TypeAlias = Literal["triton", "onednn", "torch"]
