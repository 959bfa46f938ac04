"""transformers alone: padded batches in the order that the texts came, as its own examples do."""

import argparse

import numpy as np

from benchmarks.peers.batches import PaddedBatch, pad_left
from benchmarks.peers.protocol import Peer, Sequences, Setting, Vectors, serve


def load(setting: Setting) -> Peer:
    import torch  # noqa: PLC0415 - after the environment is set
    from transformers import AutoModel, __version__  # noqa: PLC0415

    dtype, size = getattr(torch, setting.dtype), setting.options.batch_size
    model = AutoModel.from_pretrained(setting.checkpoint, dtype=dtype, local_files_only=True).eval()

    @torch.inference_mode()
    def run_batch(batch: PaddedBatch) -> Vectors:
        ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
        hidden = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, -1]
        rows: Vectors = hidden.float().numpy()
        return rows

    def run(sequences: Sequences) -> Vectors:
        batches = [sequences[begin : begin + size] for begin in range(0, len(sequences), size)]
        return np.concatenate([run_batch(pad_left(batch)) for batch in batches])

    return Peer(name=f"transformers, batch {size}", version=__version__, run=run)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.transformers_peer", description=__doc__)
    parser.add_argument("--batch-size", type=int, default=32, help="sequences padded together (32)")
    serve(parser, load)


if __name__ == "__main__":
    main()
