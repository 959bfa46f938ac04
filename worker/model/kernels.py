"""Which implementation of a layer runs where."""

import importlib.util
import os
import platform
import shutil
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast, get_args

import torch

from runtime.errors import SettingError
from worker.model.attention import why_not_chip
from worker.model.block import Block, DenseBlock
from worker.model.choices import KernelsName
from worker.model.config import Qwen3Config
from worker.model.onednn_block import OnednnBlock
from worker.model.operations import TORCH
from worker.model.weights import LayerWeights

MakeBlock: TypeAlias = Callable[[LayerWeights], Block]


def select_kernels(device: torch.device, dtype: torch.dtype, wanted: str = "auto") -> KernelsName:
    """The fastest kernels that work here, or those `wanted`; raises SettingError where these do not."""
    for name in (name for name in get_args(KernelsName) if wanted in {"auto", name}):
        reason = _why_not(name, device, dtype)
        if reason is None:
            return cast("KernelsName", name)
    raise SettingError(f"--kernels {wanted}: {reason}")


def block_maker(kernels: KernelsName, config: Qwen3Config) -> MakeBlock:
    """What makes a layer of its weights."""
    if kernels == "onednn":
        return partial(OnednnBlock, config=config)
    if kernels == "triton":
        from worker.model.triton_operations import TRITON  # noqa: PLC0415 - only CUDA machines have Triton

        return partial(DenseBlock, config=config, operations=TRITON)
    return partial(DenseBlock, config=config, operations=TORCH)


def _why_not(name: KernelsName, device: torch.device, dtype: torch.dtype) -> str | None:
    if name == "triton":
        return _why_not_triton(device)
    if name == "onednn":
        return _why_not_onednn(device, dtype)
    return None


def _why_not_triton(device: torch.device) -> str | None:
    """Triton compiles a launcher in C for this Python."""
    if device.type != "cuda":
        return f"runs on CUDA, not on {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    compilers = (os.environ.get("CC"), "gcc", "clang")
    if not any(compiler and shutil.which(compiler) for compiler in compilers):
        return "triton needs a C compiler, and there is no gcc or clang, nor is CC set to one"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "triton needs Python.h, of the package python3-dev or the like"
    return why_not_chip(device)


def _why_not_onednn(device: torch.device, dtype: torch.dtype) -> str | None:
    """The layouts were tried on x86-64 only."""
    if device.type != "cpu" or platform.machine().lower() not in {"x86_64", "amd64"}:
        return f"runs on x86-64 CPUs, not on {device.type} of {platform.machine()}"
    if not torch.backends.mkldnn.is_available():
        return "this PyTorch was built without oneDNN"
    if dtype not in {torch.float32, torch.bfloat16}:
        return f"has float32 and bfloat16, not {dtype}"
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this CPU has no bfloat16 instructions"
    return None
