"""The engine `transformers`: its own Qwen3 over packed batches, also where our forward pass would differ."""

import json
import os
import shutil
from array import array

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity
from transformers import AutoModel

from runtime.errors import SettingError
from worker.model.checkpoint import CheckpointError, resolve_checkpoint
from worker.placement import Placement
from worker.transformers_runner import TransformersRunner

LEAST_COSINE = 0.999999
CPU = Placement.choose("cpu", "float32")
BIAS = {"attention_bias": True}
SCALED_ROPE = {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}


def resolve(folder, **options):
    return resolve_checkpoint(str(folder), task=None, name=None, revision="x", **options)


def vectors(runner, sequences):
    return runner.start([array("i", ids) for ids in sequences])()


@pytest.fixture(scope="module")
def runner(embedding_checkpoint):
    return TransformersRunner(resolve(embedding_checkpoint), CPU)


@pytest.mark.parametrize("lengths", [[1], [300], [1, 2, 3, 5, 8, 130, 21, 64, 1], [33] * 4])
def test_it_has_the_vectors_of_transformers_alone(lengths, runner, transformers_embed, sequences_of):
    sequences = sequences_of(*lengths)
    ours, theirs = vectors(runner, sequences), transformers_embed(sequences)
    assert ours.dtype == torch.float32
    assert float(cosine_similarity(ours.double(), theirs.double()).min()) >= LEAST_COSINE


def test_it_has_the_vectors_of_the_packed_engine(runner, embedding_model, run, sequences_of):
    sequences = sequences_of(5, 90, 17, 17)
    ours = run(embedding_model, sequences)
    assert float(cosine_similarity(vectors(runner, sequences).double(), ours.double()).min()) >= LEAST_COSINE


def test_it_computes_every_token(runner, sequences_of):
    before = runner.stats().num_input_tokens
    sequences = [array("i", ids) for ids in [sequences_of(9)[0]] * 3]
    runner.start(sequences)()
    assert runner.count_computed(sequences) == 27
    assert runner.stats().num_input_tokens - before == runner.stats().num_computed_tokens - before == 27


def with_config(original, folder, changes, *, bias=False):
    shutil.copytree(original, folder, copy_function=os.symlink)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | changes))
    if bias:
        tensors = load_file(folder / "model.safetensors")
        torch.manual_seed(1)
        projections = [name for name in tensors if "self_attn" in name and name.endswith("_proj.weight")]
        biases = {name.replace("weight", "bias"): torch.randn(tensors[name].shape[0]) for name in projections}
        (folder / "model.safetensors").unlink()
        save_file(
            tensors | {name: bias.to(torch.bfloat16) for name, bias in biases.items()}, folder / "model.safetensors"
        )
    return folder


@pytest.mark.parametrize(("changes", "bias"), [(BIAS, True), (SCALED_ROPE, False)], ids=["bias", "scaled RoPE"])
def test_it_serves_what_the_packed_engine_refuses(
    changes, bias, embedding_checkpoint, runner, sequences_of, pad, tmp_path
):
    folder = with_config(embedding_checkpoint, tmp_path / "variant", changes, bias=bias)
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        resolve(folder)
    sequences = sequences_of(40, 7, 200)
    ours = vectors(TransformersRunner(resolve(folder, any_forward=True), CPU), sequences)
    ids, mask = pad(sequences)
    with torch.inference_mode():
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        theirs = model(input_ids=ids, attention_mask=mask).last_hidden_state[:, -1]
    assert float(cosine_similarity(ours.double(), theirs.double()).min()) >= LEAST_COSINE
    plain = vectors(runner, sequences)
    assert float(cosine_similarity(ours.double(), plain.double()).min()) < LEAST_COSINE, "the variant must differ"


@pytest.mark.parametrize("changes", [{"use_sliding_window": True}, {"is_causal": False}])
def test_attention_that_no_engine_computes_is_refused(changes, embedding_checkpoint, tmp_path):
    folder = with_config(embedding_checkpoint, tmp_path / "variant", changes)
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        resolve(folder, any_forward=True)


def test_without_its_library_it_is_refused(embedding_checkpoint, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(SettingError, match="--engine transformers: transformers is not installed"):
        TransformersRunner(resolve(embedding_checkpoint), CPU)
