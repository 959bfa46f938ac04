"""vLLM's offline pooling, compiled, in one process; its environment is tests/vllm/requirements.txt."""

import argparse
import os

import numpy as np

from benchmarks.peers.protocol import Peer, Sequences, Setting, Vectors, serve
from benchmarks.workloads import prefix_tokens

_CACHE_BYTES = 2 * 2**30  # in float32 65k tokens of four layers of 0.6B, 9k of all; resident from the start
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # so that all that it computes is this process's CPU time
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


def load(setting: Setting) -> Peer:
    os.environ.update(_ENVIRONMENT)
    import vllm  # noqa: PLC0415 - after the environment is set
    from vllm.config import PoolerConfig  # noqa: PLC0415

    llm = vllm.LLM(
        model=str(setting.checkpoint),
        runner="pooling",
        convert="embed",
        pooler_config=PoolerConfig(seq_pooling_type="LAST", use_activation=False),
        dtype=setting.dtype,
        max_model_len=setting.max_length,
        kv_cache_memory_bytes=_CACHE_BYTES,
        enable_prefix_caching=setting.options.prefix_cache,
        block_size=setting.options.block_size,
        use_tqdm_on_load=False,
    )

    def run(sequences: Sequences) -> Vectors:
        prompts = [vllm.TokensPrompt(prompt_token_ids=ids) for ids in sequences]
        outputs = llm.encode(prompts, pooling_task="embed", use_tqdm=False)
        return np.stack([output.outputs.data.float().numpy() for output in outputs])

    def prepare(sequences: Sequences) -> None:
        """Forget the texts, which no caller sends twice, and know the instruction, as after the first call."""
        llm.reset_prefix_cache()
        prefix = sequences[0][: prefix_tokens(sequences)]
        if setting.options.prefix_cache and prefix:
            run([prefix])

    return Peer(
        name=_name(setting.options),
        version=vllm.__version__,
        run=run,
        prepare=prepare,
    )


def _name(options: argparse.Namespace) -> str:
    blocks = f", blocks of {options.block_size}" if options.block_size else ""
    return f"vLLM {'with' if options.prefix_cache else 'without'} prefix cache{blocks}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.vllm_peer", description=__doc__)
    parser.add_argument("--prefix-cache", action=argparse.BooleanOptionalAction, default=True, help="as by default")
    parser.add_argument("--block-size", type=int, help="tokens that are cached together (128 on the CPU)")
    serve(parser, load)


if __name__ == "__main__":
    main()
