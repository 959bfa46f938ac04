"""ONNX Runtime in float32, of a graph that PyTorch exports; its environment is onnxruntime_requirements.txt."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers.batches import PaddedBatch, run_sorted
from benchmarks.peers.protocol import NUM_THREADS, Peer, Sequences, Setting, Vectors, serve


def load(setting: Setting) -> Peer:
    import onnxruntime  # noqa: PLC0415 - after the environment is set

    if setting.dtype != "float32":
        raise ValueError(f"dtype {setting.dtype}: on the CPU, ONNX Runtime's matrix products are float32")
    batch_size = setting.options.batch_size
    session = _session(setting.checkpoint)

    def run_batch(batch: PaddedBatch) -> Vectors:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        rows: Vectors = session.run(["last_hidden"], inputs)[0]
        return rows

    def run(sequences: Sequences) -> Vectors:
        return run_sorted(sequences, batch_size, run_batch)

    return Peer(name=f"ONNX Runtime, batch {batch_size}", version=onnxruntime.__version__, run=run)


def _session(checkpoint: Path) -> Any:
    """A session over a fresh export; the files may go once it is loaded."""
    import onnxruntime  # noqa: PLC0415 - after the environment is set

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = NUM_THREADS
    # Its own thread pool spins where OpenMP's is told not to, which would count as work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _export(checkpoint, path)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _export(checkpoint: Path, path: Path) -> None:
    """The last position's hidden state of left-padded ids and their mask, batch and length dynamic."""
    import torch  # noqa: PLC0415 - after the environment is set

    # Two tensors: of one, given twice, the export would make a graph that reads the mask as ids.
    example = (torch.ones((2, 8), dtype=torch.int64), torch.ones((2, 8), dtype=torch.int64))
    dimensions = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    torch.onnx.export(
        _last_hidden(checkpoint),
        example,
        path,
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden"],
        dynamic_shapes=(dimensions, dimensions),
        dynamo=True,
        verbose=False,
    )


def _last_hidden(checkpoint: Path) -> Any:
    import torch  # noqa: PLC0415 - after the environment is set
    from transformers import AutoModel  # noqa: PLC0415

    class LastHidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            hidden: torch.Tensor = outputs.last_hidden_state[:, -1]
            return hidden

    return LastHidden().eval()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.onnxruntime_peer", description=__doc__)
    parser.add_argument("--batch-size", type=int, default=1, help="sequences padded together (1, which pads nothing)")
    serve(parser, load)


if __name__ == "__main__":
    main()
