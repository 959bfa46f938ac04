"""Which kernels run a layer, and that all of them compute the same layer."""

import shutil
import sysconfig

import pytest
import torch
from torch.nn.functional import cosine_similarity

from runtime.errors import SettingError
from worker.model import kernels
from worker.model.kernels import select_kernels

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LEAST_COSINE = 0.999999


@pytest.fixture
def with_triton(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: name == "triton")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


@pytest.fixture
def on_x86(monkeypatch):
    monkeypatch.setattr(kernels.platform, "machine", lambda: "x86_64")


def test_cuda_has_triton(with_triton):
    assert select_kernels(CUDA, torch.bfloat16) == "triton"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_x86_cpu_has_onednn(dtype, on_x86, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert select_kernels(CPU, dtype) == "onednn"


def test_a_cpu_without_bfloat16_instructions_uses_pytorch_for_it(on_x86, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert select_kernels(CPU, torch.bfloat16) == "torch"
    assert select_kernels(CPU, torch.float32) == "onednn"


def test_another_cpu_uses_pytorch(monkeypatch):
    monkeypatch.setattr(kernels.platform, "machine", lambda: "aarch64")
    assert select_kernels(CPU, torch.float32) == "torch"


def test_what_is_wanted_is_used(with_triton):
    assert select_kernels(CUDA, torch.bfloat16, "torch") == "torch"
    assert select_kernels(CPU, torch.float32, "torch") == "torch"


@pytest.mark.parametrize(
    ("wanted", "device", "dtype", "message"),
    [
        ("triton", CPU, torch.float32, "--kernels triton: runs on CUDA, not on cpu"),
        ("onednn", CUDA, torch.float32, "--kernels onednn: runs on x86-64 CPUs, not on cuda"),
        ("onednn", CPU, torch.float16, "--kernels onednn: has float32 and bfloat16, not torch.float16"),
    ],
)
def test_what_cannot_run_is_refused_by_name(wanted, device, dtype, message, on_x86):
    with pytest.raises(SettingError, match=message):
        select_kernels(device, dtype, wanted)


def test_triton_needs_a_chip_and_headers(with_triton, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(SettingError, match=r"needs compute capability 8\.0 or later, this device has 7\.5"):
        select_kernels(CUDA, torch.bfloat16, "triton")
    assert select_kernels(CUDA, torch.bfloat16) == "torch"
    (tmp_path / "Python.h").unlink()
    with pytest.raises(SettingError, match=r"triton needs Python\.h"):
        select_kernels(CUDA, torch.bfloat16, "triton")


def test_triton_needs_itself_and_a_compiler(with_triton, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SettingError, match="triton needs a C compiler"):
        select_kernels(CUDA, torch.bfloat16, "triton")
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="triton is not installed"):
        select_kernels(CUDA, torch.bfloat16, "triton")


@pytest.mark.parametrize("name", ["onednn", "torch"])
@pytest.mark.parametrize("lengths", [[1], [1, 2, 3], [700, 512, 3], [513]])
def test_every_layer_has_the_vectors_of_transformers(
    name, lengths, load, embedding_checkpoint, transformers_embed, run, sequences_of
):
    sequences = sequences_of(*lengths)
    ours, theirs = run(load(embedding_checkpoint, kernels=name), sequences), transformers_embed(sequences)
    assert float(cosine_similarity(ours.double(), theirs.double()).min()) >= LEAST_COSINE


@pytest.mark.parametrize("name", ["onednn", "torch"])
def test_every_layer_in_bfloat16_is_as_near_to_float32_as_transformers_is(
    name, load, embedding_checkpoint, transformers_embed, run, sequences_of
):
    sequences = sequences_of(*range(4, 260, 16))
    exact = transformers_embed(sequences).double()
    ours = run(load(embedding_checkpoint, torch.bfloat16, kernels=name), sequences)
    theirs = transformers_embed(sequences, torch.bfloat16)
    our_error = (1 - cosine_similarity(ours.double(), exact)).mean()
    assert our_error <= 1.5 * (1 - cosine_similarity(theirs.double(), exact)).mean()
