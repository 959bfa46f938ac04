import inspect
import sys
import types
from importlib.machinery import ModuleSpec
from itertools import pairwise

import pytest
import torch
from torch.nn.attention import varlen

from runtime.errors import SettingError
from worker.model.attention import (
    flash_attention_2,
    flash_attention_3,
    sdpa,
    select_attention,
    torch_varlen_attention,
)


def cumulative(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def by_the_formula(q, k, v, cu_q, cu_k):
    """Softmax of q·k over the keys up to the query's own place, counted from the end, in float64."""
    groups = q.shape[1] // k.shape[1]
    out = []
    for (q0, q1), (k0, k1) in zip(pairwise(cu_q.tolist()), pairwise(cu_k.tolist()), strict=True):
        queries, keys, values = (
            x.double().transpose(0, 1)
            for x in (q[q0:q1], k[k0:k1].repeat_interleave(groups, 1), v[k0:k1].repeat_interleave(groups, 1))
        )
        scores = queries @ keys.transpose(1, 2) / q.shape[2] ** 0.5
        places = torch.arange(q1 - q0)[:, None] + (k1 - k0) - (q1 - q0)
        scores = scores.masked_fill(torch.arange(k1 - k0) > places, float("-inf"))
        out.append((scores.softmax(-1) @ values).transpose(0, 1))
    return torch.cat(out)


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize(
    ("query_lengths", "key_lengths"),
    [
        ([5], [5]),
        ([7, 1, 7], [7, 1, 7]),
        ([1, 1], [9, 1]),
        ([3, 4, 1, 2], [8, 4, 6, 30]),
        ([1, 3, 2], [1024, 1025, 1500]),
    ],
    ids=["alone", "equal", "one query each", "fewer queries than keys", "many more keys than queries"],
)
def test_the_loop_is_causal_from_the_bottom_right(query_lengths, key_lengths, num_heads, num_kv_heads):
    torch.manual_seed(0)
    q = torch.randn(sum(query_lengths), num_heads, 16)
    k, v = (torch.randn(sum(key_lengths), num_kv_heads, 16) for _ in range(2))
    cu_q, cu_k = cumulative(query_lengths), cumulative(key_lengths)
    ours = sdpa(q, k, v, cu_q, cu_k, max(query_lengths), max(key_lengths))
    assert torch.allclose(ours.double(), by_the_formula(q, k, v, cu_q, cu_k), atol=1e-6)


def test_the_loop_takes_32k_keys_beside_a_single_one():
    torch.manual_seed(0)
    q = torch.randn(3, 4, 16)
    k, v = (torch.randn(32_769, 2, 16) for _ in range(2))
    cu_q, cu_k = cumulative([2, 1]), cumulative([32_768, 1])
    ours = sdpa(q, k, v, cu_q, cu_k, 2, 32_768)
    assert torch.allclose(ours.double(), by_the_formula(q, k, v, cu_q, cu_k), atol=1e-6)


def test_the_loop_keeps_bfloat16():
    q, k = torch.randn(6, 4, 16).bfloat16(), torch.randn(6, 2, 16).bfloat16()
    cu = cumulative([4, 2])
    ours = sdpa(q, k, k, cu, cu, 4, 4)
    assert ours.dtype == torch.bfloat16
    assert torch.allclose(ours.double(), by_the_formula(q, k, k, cu, cu), atol=2e-2)


def arguments_passed(monkeypatch, kernel_signature, *, num_kv_heads):
    """What the adapter gives a varlen kernel of this signature, bound to its parameters."""
    calls = []

    def kernel(*args, **kwargs):
        calls.append(kernel_signature.bind(*args, **kwargs).arguments)
        return args[0]

    kernel.__signature__ = kernel_signature
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    q, k, cu = torch.zeros(3, 4, 8), torch.zeros(5, num_kv_heads, 8), torch.tensor([0, 3])
    out = torch_varlen_attention()(q, k, k, cu, cu + 2, 3, 5)
    assert out is q
    return calls[0]


def signature(*keywords):
    names = ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    positional = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    optional = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in keywords]
    return inspect.Signature(positional + optional)


def test_the_varlen_kernel_is_causal_and_told_of_unequal_head_counts(monkeypatch):
    passed = arguments_passed(monkeypatch, signature("window_size", "enable_gqa"), num_kv_heads=2)
    assert (passed["window_size"], passed["enable_gqa"]) == ((-1, 0), True)
    assert (passed["max_q"], passed["max_k"]) == (3, 5)
    assert passed["cu_seq_k"].tolist() == [2, 5]


def test_the_varlen_kernel_is_not_told_of_equal_head_counts(monkeypatch):
    passed = arguments_passed(monkeypatch, signature("window_size", "enable_gqa"), num_kv_heads=4)
    assert "enable_gqa" not in passed


def test_the_varlen_kernel_of_torch_2_11_has_no_gqa_flag(monkeypatch):
    passed = arguments_passed(monkeypatch, signature("window_size"), num_kv_heads=2)
    assert passed["window_size"] == (-1, 0)


def test_the_installed_varlen_kernel_has_the_arguments_the_adapter_passes():
    assert "window_size" in inspect.signature(varlen.varlen_attn).parameters


@pytest.fixture
def flash_kernels(monkeypatch):
    """Modules of flash-attn's names that note what they are called with: the real ones need a CUDA device."""
    calls = []

    def install(name, result=lambda q: q):
        def kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *, causal=False):
            calls.append((q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k))
            assert causal
            return result(q)

        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.flash_attn_varlen_func = kernel
        monkeypatch.setitem(sys.modules, name, module)

    install.calls = calls
    return install


@pytest.mark.parametrize(
    ("module", "adapter"), [("flash_attn", flash_attention_2), ("flash_attn_interface", flash_attention_3)]
)
@pytest.mark.parametrize("result", [lambda q: q, lambda q: (q, "log-sum-exp")], ids=["alone", "with log-sum-exp"])
def test_flash_attn_is_causal_and_gets_the_arguments_in_its_order(module, adapter, result, flash_kernels):
    flash_kernels(module, result)
    q, k, v = torch.zeros(3, 4, 8), torch.zeros(5, 2, 8), torch.ones(5, 2, 8)
    cu_q, cu_k = cumulative([1, 2]), cumulative([2, 3])
    assert adapter()(q, k, v, cu_q, cu_k, 2, 3) is q
    (passed,) = flash_kernels.calls
    for was, given in zip(passed, (q, k, v, cu_q, cu_k, 2, 3), strict=True):
        assert was is given


@pytest.fixture
def chip(monkeypatch):
    """The compute capability of the CUDA device; this machine has none."""
    return lambda *capability: monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)


@pytest.mark.parametrize(
    ("installed", "compute", "device", "dtype", "name"),
    [
        ([], (9, 0), "cpu", torch.float32, "sdpa"),
        (["flash_attn"], (9, 0), "cpu", torch.bfloat16, "sdpa"),
        ([], (9, 0), "cuda", torch.bfloat16, "torch-varlen"),
        ([], (9, 0), "cuda", torch.float16, "torch-varlen"),
        ([], (9, 0), "cuda", torch.float32, "sdpa"),
        (["flash_attn"], (8, 0), "cuda", torch.bfloat16, "flash-attn"),
        (["flash_attn", "flash_attn_interface"], (9, 0), "cuda", torch.bfloat16, "flash-attn-3"),
        (["flash_attn", "flash_attn_interface"], (8, 0), "cuda", torch.bfloat16, "flash-attn"),
        (["flash_attn", "flash_attn_interface"], (9, 0), "cuda", torch.float32, "sdpa"),
        (["flash_attn", "flash_attn_interface"], (7, 5), "cuda", torch.float16, "sdpa"),
    ],
)
def test_the_back_end_is_chosen_by_what_is_installed_device_and_dtype(
    installed, compute, device, dtype, name, flash_kernels, chip
):
    chip(*compute)
    for module in installed:
        flash_kernels(module)
    assert select_attention(torch.device(device), dtype)[0] == name


@pytest.mark.parametrize(
    ("wanted", "device", "dtype", "message"),
    [
        ("torch-varlen", "cpu", torch.bfloat16, "--attention torch-varlen: runs on CUDA, not on cpu"),
        ("torch-varlen", "cuda", torch.float32, "--attention torch-varlen: has no float32"),
        (
            "flash-attn",
            "cuda",
            torch.bfloat16,
            "--attention flash-attn: flash_attn cannot be imported: No mod",
        ),
        ("flash-attn-3", "cuda", torch.bfloat16, "--attention flash-attn-3: flash_attn_interface cannot be imported"),
    ],
)
def test_a_back_end_that_is_wanted_and_cannot_serve_is_refused(wanted, device, dtype, message, chip):
    chip(9, 0)
    with pytest.raises(SettingError, match=message):
        select_attention(torch.device(device), dtype, wanted)


def test_a_package_that_is_there_and_does_not_load_is_passed_over(chip, monkeypatch, tmp_path):
    chip(8, 0)
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c104cuda')")
    monkeypatch.syspath_prepend(tmp_path)
    assert select_attention(torch.device("cuda"), torch.bfloat16)[0] == "torch-varlen"
    with pytest.raises(SettingError, match="--attention flash-attn: flash_attn cannot be imported: undefined symbol"):
        select_attention(torch.device("cuda"), torch.bfloat16, "flash-attn")


def test_an_old_chip_is_named(flash_kernels, chip):
    flash_kernels("flash_attn")
    chip(7, 5)
    with pytest.raises(SettingError, match=r"needs compute capability 8\.0 or later, this device has 7\.5"):
        select_attention(torch.device("cuda"), torch.float16, "flash-attn")


def test_flash_attn_3_is_refused_on_another_chip(flash_kernels, chip):
    flash_kernels("flash_attn_interface")
    chip(8, 9)
    with pytest.raises(SettingError, match=r"made for compute capability 9\.0, this device has 8\.9"):
        select_attention(torch.device("cuda"), torch.bfloat16, "flash-attn-3")


def test_a_back_end_that_is_wanted_is_used(flash_kernels, chip):
    flash_kernels("flash_attn")
    chip(8, 0)
    assert select_attention(torch.device("cuda"), torch.bfloat16, "torch-varlen")[0] == "torch-varlen"
    assert select_attention(torch.device("cuda"), torch.bfloat16, "sdpa")[0] == "sdpa"
