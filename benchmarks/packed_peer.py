"""The packed engine as the benchmark's peers are run: a process of its own, on the same token ids."""

import argparse
from array import array
from collections.abc import Callable

from benchmarks.peers.protocol import Peer, Sequences, Setting, Vectors, serve
from benchmarks.workloads import prefix_tokens

_NEVER = 2**31  # no agreement is that long: the plain plan
_CACHE_BYTES = 256 << 20


def load(setting: Setting) -> Peer:
    plan, kernels = setting.options.plan, setting.options.kernels
    run = _cached(setting) if plan == "cached" else _uncached(setting, shares=plan == "shared")
    return Peer(name=f"packed, {plan} plan, {kernels} kernels", version="", run=run)


def _cached(setting: Setting) -> Callable[[Sequences], Vectors]:
    """As a worker runs it: what jobs call their prefix is kept from batch to batch."""
    from worker.model.checkpoint import resolve_checkpoint  # noqa: PLC0415 - after the environment is set
    from worker.packed_runner import PackedRunner  # noqa: PLC0415
    from worker.placement import Placement  # noqa: PLC0415

    checkpoint = resolve_checkpoint(str(setting.checkpoint), task=None, name=None, revision="bench")
    placement = Placement.choose("cpu", setting.dtype)
    runner = PackedRunner(checkpoint, placement, kernels=setting.options.kernels, prefix_cache_bytes=_CACHE_BYTES)

    def run(sequences: Sequences) -> Vectors:
        ids = [array("i", sequence) for sequence in sequences]
        prefix = ids[0][: prefix_tokens(sequences)]
        return runner.start(ids, [prefix])().numpy()

    return run


def _uncached(setting: Setting, *, shares: bool) -> Callable[[Sequences], Vectors]:
    import torch  # noqa: PLC0415 - after the environment is set

    from worker.model.attention import select_attention  # noqa: PLC0415
    from worker.model.checkpoint import resolve_checkpoint  # noqa: PLC0415
    from worker.model.kernels import block_maker, select_kernels  # noqa: PLC0415
    from worker.model.qwen3 import Qwen3  # noqa: PLC0415
    from worker.model.weights import load_weights  # noqa: PLC0415
    from worker.packing import pack  # noqa: PLC0415 - torch, as above
    from worker.sharing import MIN_SHARED_TOKENS  # noqa: PLC0415 - likewise

    cpu, dtype = torch.device("cpu"), getattr(torch, setting.dtype)
    checkpoint = resolve_checkpoint(str(setting.checkpoint), task=None, name=None, revision="bench")
    maker = block_maker(select_kernels(cpu, dtype, setting.options.kernels), checkpoint.config)
    weights = load_weights(checkpoint.weight_files, checkpoint.config, device=cpu, dtype=dtype, make_layer=maker)
    model = Qwen3(checkpoint.config, weights, select_attention(cpu, dtype)[1])
    min_shared = MIN_SHARED_TOKENS if shares else _NEVER

    def run(sequences: Sequences) -> Vectors:
        batch = pack([array("i", sequence) for sequence in sequences], cpu, min_shared=min_shared)
        return model.forward(batch).float().numpy()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packed_peer", description=__doc__)
    parser.add_argument("--plan", choices=["shared", "plain", "cached"], default="shared")
    parser.add_argument("--kernels", choices=["auto", "onednn", "torch"], default="auto")
    serve(parser, load)


if __name__ == "__main__":
    main()
