"""sentence-transformers: what `encode` does after tokenising, in the environment of our own tests."""

import argparse

from benchmarks.peers.batches import PaddedBatch, run_sorted
from benchmarks.peers.protocol import Peer, Sequences, Setting, Vectors, serve


def load(setting: Setting) -> Peer:
    import torch  # noqa: PLC0415 - after the environment is set
    from sentence_transformers import SentenceTransformer, __version__  # noqa: PLC0415

    options = {"dtype": getattr(torch, setting.dtype)}
    model = SentenceTransformer(
        str(setting.checkpoint), device="cpu", model_kwargs=options, local_files_only=True
    ).eval()

    @torch.inference_mode()
    def run_batch(batch: PaddedBatch) -> Vectors:
        features = {
            "input_ids": torch.from_numpy(batch.input_ids),
            "attention_mask": torch.from_numpy(batch.attention_mask),
        }
        rows: Vectors = model(features)["sentence_embedding"].float().numpy()
        return rows

    def run(sequences: Sequences) -> Vectors:
        return run_sorted(sequences, setting.options.batch_size, run_batch)

    return Peer(name=f"sentence-transformers, batch {setting.options.batch_size}", version=__version__, run=run)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.sentence_transformers_peer", description=__doc__)
    parser.add_argument("--batch-size", type=int, default=32, help="sequences padded together (32, as in encode)")
    serve(parser, load)


if __name__ == "__main__":
    main()
