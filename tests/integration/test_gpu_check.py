import json
import subprocess
import sys
from array import array
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check import model_parity
from benchmarks.gpu_check.flops import Flops, count_flops, count_pairs
from benchmarks.gpu_check.models import config_of
from benchmarks.gpu_check.profiling import KernelTime, Profile, profile_rows, take_profile
from benchmarks.gpu_check.report import Report, Row, judge, parity_row
from benchmarks.gpu_check.speed import Speed, missed_target, speed_row
from benchmarks.gpu_check.workloads import RandomIds, other_workloads, plan_cases, target_workloads
from worker.model import attention as attention_module
from worker.model import kernels as kernels_module
from worker.model.config import Qwen3Config
from worker.packing import count_computed_tokens, pack

CPU = torch.device("cpu")
SMALL = Qwen3Config(
    vocab_size=100,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=2,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    tie_word_embeddings=True,
    max_position_embeddings=64,
)
KEY_VALUE_WEIGHTS = 2 * (8 * 2 * 2)
OTHER_WEIGHTS = 8 * 4 * 2 + 4 * 2 * 8 + 3 * 8 * 12  # queries, output; gate, up, down


def packed(*sequences):
    return pack([array("i", ids) for ids in sequences], CPU)


def test_the_last_layer_counts_for_pooled_rows_only():
    found = count_flops(SMALL, packed([1, 2, 3], [4, 5]))
    key_value_rows, other_rows = 3 * 5, 2 * 5 + 2
    assert found.products == 2 * (key_value_rows * KEY_VALUE_WEIGHTS + other_rows * OTHER_WEIGHTS)
    pairs = 2 * ((1 + 2 + 3) + (1 + 2)) + (3 + 2)
    assert found.attention == 4 * pairs * 4 * 2
    assert found.total == found.products + found.attention


def test_shared_tokens_count_once_and_own_ones_see_them():
    shared = list(range(8))
    batch = packed([*shared, 10, 11], [*shared, 20, 21, 22])
    assert count_pairs(batch.every_token) == sum(range(1, 9)) + (9 + 10) + (9 + 10 + 11)
    assert count_pairs(batch.last_tokens) == 10 + 11
    assert count_flops(SMALL, batch).products == 2 * (3 * 13 * KEY_VALUE_WEIGHTS + (2 * 13 + 2) * OTHER_WEIGHTS)


def test_every_kind_of_plan_is_what_its_name_says():
    cases = {case.name: case for case in plan_cases(1000)}
    inputs = {name: sum(map(len, case.sequences)) for name, case in cases.items()}
    computed = {name: count_computed_tokens(case.sequences) for name, case in cases.items()}
    assert computed["plain"] == inputs["plain"]
    assert inputs["shared"] - computed["shared"] == 4 * 4 * 40
    assert inputs["nested"] - computed["nested"] == 5 * 40 + 5 * 57 + 24
    assert inputs["duplicates"] - computed["duplicates"] == (12 + 1 + 33 + 48 + 64 + 90 + 110 + 150) + 70
    assert all(text[:48] == cases["cached"].prefix for text in cases["cached"].sequences)
    assert 1 in map(len, cases["plain"].sequences)


def test_batches_for_speed_are_filled_and_never_the_same():
    workloads = [*target_workloads(32_768), *other_workloads(32_768)]
    names = ["512", "mixed 8-512", "32768", "rerank 1 x 50", "64 queries", "128", "2048", "8192"]
    assert [workload.name for workload in workloads] == names
    filled = {workload.name: workload.num_tokens for workload in workloads}
    assert {filled[name] for name in ("128", "512", "2048", "8192", "32768")} == {32_768}
    assert 32_768 - 512 <= filled["mixed 8-512"] <= 32_768
    ids = RandomIds(1000, seed=0)
    assert workloads[0].draw(ids) != workloads[0].draw(ids)


def test_a_run_on_the_cpu_says_everything_in_lines_and_in_json(tmp_path):
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = Counter(line.split(" ", 1)[0] for line in done.stdout.splitlines())
    assert kinds.keys() - {"PROFILE", "SKIPPED"} == {
        "DEVICE", "BACKENDS", "PEAK", "STARTUP", "PARITY", "SPEED", "RESULT"
    }  # fmt: skip
    assert "FAILED" not in done.stdout
    found = json.loads(path.read_text())
    assert (found["exit_code"], found["result"][:2]) == (0, "ok")
    assert [row["kind"] for row in found["rows"]] == [line.split(" ", 1)[0] for line in done.stdout.splitlines()[:-1]]
    speeds = {row["figures"]["workload"]: row["figures"] for row in found["rows"] if row["kind"] == "SPEED"}
    assert speeds.keys() == {"512", "mixed 8-512", "128", "rerank 1 x 50", "64 queries"}
    assert all(figures["mfu"] > 0 and figures["peak_gib"] > 0 for figures in speeds.values())
    assert speeds["64 queries"]["num_computed"] < speeds["64 queries"]["num_tokens"]
    assert speeds["512"]["speedup"] == pytest.approx(speeds["512"]["twin_ms"] / speeds["512"]["forward_ms"])


@pytest.fixture
def parity_only(monkeypatch, capsys):
    """The exit code and lines of a run that has no time for speed, and models of two layers."""

    def run():
        exit_code = gpu_check.main(["--device", "cpu", "--minutes", "0"])
        return exit_code, capsys.readouterr().out.splitlines()

    monkeypatch.setattr(model_parity, "_NUM_LAYERS", 2)
    return run


def failed(lines):
    return [line for line in lines if "; FAILED: " in line]


def without_mask(q, k, v, cu_seqlens_q, cu_seqlens_k, *_):
    """Attention in which every query sees its whole sequence."""
    out = torch.empty_like(q)
    borders = (pairwise(cu_seqlens.tolist()) for cu_seqlens in (cu_seqlens_q, cu_seqlens_k))
    for (q_begin, q_end), (k_begin, k_end) in zip(*borders, strict=True):
        heads = (x.transpose(0, 1).unsqueeze(0) for x in (q[q_begin:q_end], k[k_begin:k_end], v[k_begin:k_end]))
        out[q_begin:q_end] = scaled_dot_product_attention(*heads, enable_gqa=True).squeeze(0).transpose(0, 1)
    return out


def test_attention_without_a_mask_fails(monkeypatch, parity_only):
    monkeypatch.setitem(attention_module._MAKERS, "sdpa", lambda: without_mask)
    exit_code, lines = parity_only()
    assert exit_code == 1
    assert any(line.startswith("PARITY attention sdpa float32: ") for line in failed(lines))
    assert any(line.startswith("PARITY tiny float32 onednn sdpa: ") for line in failed(lines))
    assert not any("transformers: 1 - cosine" in line for line in failed(lines)), "the oracles still agree"
    assert lines[-1].startswith("RESULT FAILED: PARITY attention sdpa")


def test_wrong_kernels_fail_and_the_others_do_not(monkeypatch, parity_only):
    wrong = replace(
        kernels_module.TORCH, silu_mul=lambda gate_up: torch.relu(gate_up.chunk(2, 1)[0]) * gate_up.chunk(2, 1)[1]
    )
    monkeypatch.setattr(kernels_module, "TORCH", wrong)
    exit_code, lines = parity_only()
    assert exit_code == 1
    assert {line.partition(":")[0] for line in failed(lines)} == {
        f"PARITY tiny {dtype} torch sdpa" for dtype in ("bfloat16", "float16", "float32")
    }


def test_kernels_that_raise_are_a_failure_and_the_rest_is_measured(monkeypatch, parity_only):
    def broken(*_):
        raise ValueError("no such kernel\nand more")

    monkeypatch.setattr(kernels_module, "TORCH", replace(kernels_module.TORCH, add_norm=broken))
    exit_code, lines = parity_only()
    assert exit_code == 1
    assert "PARITY tiny float32 torch sdpa: raised; FAILED: ValueError: no such kernel" in lines
    assert any(line.startswith("PARITY tiny float32 onednn sdpa: 1 - cosine") for line in lines)


def test_without_transformers_the_engines_own_plain_path_is_the_measure(monkeypatch, parity_only):
    monkeypatch.setattr(gpu_check, "why_no_twin", lambda *_: "not installed")
    exit_code, lines = parity_only()
    assert exit_code == 0
    assert "SKIPPED transformers: not installed" in lines
    assert any("times the error of torch sdpa itself" in line for line in lines)
    left_out = [line for line in lines if line.startswith("SKIPPED SPEED")]
    assert (len(left_out), left_out[0]) == (5, "SKIPPED SPEED tiny, 512: out of time")


def test_memory_that_does_not_suffice_is_no_failure(capsys):
    def measure():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nmore")

    report = Report()
    report.attempt("SPEED", "8B, 32768", measure)
    assert capsys.readouterr().out == "SKIPPED SPEED 8B, 32768: out of memory: CUDA out of memory. Tried\n"
    assert judge(report.rows, is_gpu=True) == ("ok, 1 skipped", 0)


@pytest.mark.parametrize("figure", [1.01e-6, float("nan"), float("inf")])
def test_a_figure_above_the_bar_or_none_at_all_fails(figure):
    row = parity_row("x", "1 - cosine", {"plain": 0.0, "shared": figure}, 1e-6)
    assert row.failed == "shared"


def test_failures_come_before_missed_targets_which_count_on_a_gpu():
    wrong, slow = Row(kind="PARITY", name="a", text="", failed="x"), Row(kind="SPEED", name="b", text="", missed="y")
    assert judge([wrong, slow], is_gpu=True) == ("FAILED: PARITY a", 1)
    assert judge([slow], is_gpu=True) == ("FAILED: missed b (y)", 2)
    assert judge([slow], is_gpu=False) == ("ok, but missed b (y)", 0)
    assert judge([], is_gpu=True) == ("ok", 0)


SPEED = Speed(
    size="0.6B",
    workload="512",
    num_texts=64,
    num_tokens=32_768,
    num_computed=32_768,
    flops=Flops(products=30 * 10**12, attention=2 * 10**12),
    forward_ms=50.0,
    plan_ms=2.0,
    twin_ms=120.0,
    peak_gib=3.5,
    peak_tflops=800.0,
)


def test_speed_is_said_in_all_its_units():
    row = speed_row("0.6B", SPEED)
    assert str(row) == (
        "SPEED 0.6B, 512: 64 texts, 32768 tokens, 32768 computed: 50 ms, 6.554e+05 tokens/s, 1280 texts/s, "
        "MFU 80.0%, peak 3.50 GiB, plan 2 ms, 2.40 x transformers (120 ms)"
    )
    assert row.figures["mfu"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, ""),
        ({"forward_ms": 80.0}, "MFU 50.0% of 60%"),
        ({"size": "8B", "forward_ms": 60.0}, "MFU 66.7% of 75%"),
        ({"size": "tiny", "forward_ms": 80.0}, ""),
        ({"workload": "2048", "forward_ms": 80.0}, ""),
        ({"workload": "mixed 8-512"}, "2.40 of 2.5 x transformers"),
        ({"workload": "mixed 8-512", "twin_ms": 125.0}, ""),
        ({"workload": "mixed 8-512", "twin_ms": None}, ""),
    ],
)
def test_targets_are_of_sizes_and_workloads(changes, missed):
    assert missed_target(replace(SPEED, **changes)) == missed


def test_a_profile_says_what_ran_how_near_to_the_peak():
    kernels = [
        KernelTime(name="nvjet_tst_256x128", num_runs=4, total_ms=6.0),
        KernelTime(name="cutlass::device_kernel<flash::FlashAttnFwd>", num_runs=2, total_ms=2.0),
        KernelTime(name="_norm_kernel", num_runs=8, total_ms=1.0),
    ]
    flops = Flops(products=3 * 10**12, attention=4 * 10**11)
    rows = list(profile_rows("x", Profile(total_ms=10.0, kernels=kernels), flops, peak_tflops=1000.0))
    assert rows[0].text == (
        "10 ms: attention 2 ms (20.0% of the peak), products 6 ms (50.0% of the peak), other 1 ms, none 1 ms"
    )
    assert rows[1].text == "60.0%, 6 ms, 4 x nvjet_tst_256x128"


def test_a_profile_of_the_cpu_finds_the_product():
    left = torch.ones(64, 64)
    found = take_profile(CPU, lambda: left @ left)
    assert next(kernel for kernel in found.kernels if kernel.family == "products").num_runs == 1


def test_the_sizes_are_the_published_ones():
    assert [config_of(size).num_hidden_layers for size in ("0.6B", "4B", "8B")] == [28, 36, 36]
    assert config_of("8B", num_layers=2).num_hidden_layers == 2
