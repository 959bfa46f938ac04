import dataclasses
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobqueue.messages import VectorEncoding
from worker.heads import embed_rows, score_rows
from worker.make_checkpoint import make_checkpoint
from worker.model.checkpoint import CheckpointError, ModelTask, resolve_checkpoint
from worker.model.shapes import Shape
from worker.model.weights import load_weights, load_yes_minus_no

CPU = torch.device("cpu")


SHAPE = Shape(hidden_size=32, intermediate_size=64, num_hidden_layers=3)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    make_checkpoint(folder, task=ModelTask.EMBED, seed=0, shape=SHAPE)
    return folder


@pytest.fixture
def changed(original, tmp_path):
    """The checkpoint with other tensors, or another config.json; what is unchanged is linked."""

    def change(*, tensors=None, config=None):
        folder = tmp_path / "changed"
        shutil.copytree(original, folder, copy_function=os.symlink)
        if tensors is not None:
            weights = tensors(load_file(original / "model.safetensors"))
            (folder / "model.safetensors").unlink()
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if config is not None:
            values = json.loads((original / "config.json").read_text())
            (folder / "config.json").unlink()
            (folder / "config.json").write_text(json.dumps(config(values)))
        return folder

    return change


@pytest.fixture
def same_vectors(load, original, run, sequences_of):
    def check(folder):
        sequences = sequences_of(5, 40)
        assert torch.equal(run(load(folder), sequences), run(load(original), sequences))

    return check


def test_names_may_lack_the_model_prefix(changed, same_vectors):
    same_vectors(changed(tensors=lambda t: {name.removeprefix("model."): value for name, value in t.items()}))


def test_an_embedding_models_head_is_not_needed_and_not_read(changed, same_vectors):
    same_vectors(changed(tensors=lambda t: {**t, "lm_head.weight": torch.zeros(3, 3)}))


def test_rope_theta_may_stand_in_rope_parameters(changed, same_vectors):
    def move(config):
        theta = config.pop("rope_theta")
        return {**config, "rope_parameters": {"rope_type": "default", "rope_theta": theta}}

    same_vectors(changed(config=move))


def test_weights_may_be_sharded(same_vectors, tmp_path):
    make_checkpoint(tmp_path / "sharded", task=ModelTask.EMBED, seed=0, shape=SHAPE, max_shard_bytes=10**4)
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    same_vectors(tmp_path / "sharded")


def test_an_untied_head_is_read_from_its_own_rows(load, yes_minus_no, run, sequences_of, tmp_path):
    shape = Shape(hidden_size=32, num_hidden_layers=1, tie_word_embeddings=False)
    make_checkpoint(tmp_path / "untied", task=ModelTask.RERANK, seed=1, shape=shape)
    model = load(tmp_path / "untied")
    head = load_file(tmp_path / "untied" / "model.safetensors")["lm_head.weight"].float()
    weight = yes_minus_no(tmp_path / "untied")
    assert torch.equal(weight, head[9693] - head[2152])
    hidden = run(model, sequences_of(12))
    difference = (hidden @ head.T)[0, [9693, 2152]]
    expected = (difference[0] - difference[1]).numpy().tobytes()
    ours = score_rows(hidden, weight).rows
    assert memoryview(ours).cast("f")[0] == pytest.approx(memoryview(expected).cast("f")[0], abs=1e-6)


def test_a_tied_head_is_the_embedding(rerank_checkpoint, rerank_model, yes_minus_no):
    embedding = rerank_model.weights.embedding
    assert torch.equal(yes_minus_no(rerank_checkpoint), embedding[9693] - embedding[2152])


def test_weights_arrive_in_the_dtype_asked_for(load, embedding_checkpoint):
    weights = load(embedding_checkpoint, torch.bfloat16).weights
    assert weights.embedding.dtype == weights.layers[0].input_norm.dtype == torch.bfloat16


def test_weights_that_are_no_numbers_give_rows_marked_as_not_finite(load, changed, run, sequences_of):
    def spoil(tensors):
        tensors["model.embed_tokens.weight"][1234] = float("nan")
        return tensors

    hidden = run(load(changed(tensors=spoil)), [[1, 2, 151643], [5, 1234, 151643], [3, 151643]])
    encoded = embed_rows(hidden, 32, normalize=True, encoding=VectorEncoding.FLOAT32)
    assert encoded.finite == [True, False, True]


def load_changed(folder):
    checkpoint = resolve_checkpoint(str(folder), task=None, name=None, revision="x")
    load_weights(
        checkpoint.weight_files, checkpoint.config, device=CPU, dtype=torch.float32, make_layer=lambda layer: layer
    )


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("model.norm.weight"), r"tensor norm\.weight: missing"),
        (without("model.layers.2.mlp.up_proj.weight"), r"tensor layers\.2\.mlp\.up_proj\.weight: missing"),
        (
            lambda t: {**t, "model.layers.0.self_attn.q_norm.weight": torch.ones(8)},
            r"tensor layers\.0\.self_attn\.q_norm\.weight: has shape \(8,\), config\.json says \(64,\)",
        ),
        (
            lambda t: {**t, "model.layers.0.self_attn.q_proj.bias": torch.ones(8)},
            r"tensor layers\.0\.self_attn\.q_proj\.bias: not part of",
        ),
        (
            lambda t: {**t, "model.layers.3.input_layernorm.weight": torch.ones(32)},
            r"tensor layers\.3\.input_layernorm\.weight: not part of",
        ),
    ],
)
def test_a_tensor_that_is_missing_or_does_not_fit_is_refused_by_name(change, message, changed):
    folder = changed(tensors=change)
    with pytest.raises(CheckpointError, match=message):
        load_changed(folder)


def test_a_head_that_should_be_there_is_missed(rerank_checkpoint):
    checkpoint = resolve_checkpoint(str(rerank_checkpoint), task=None, name=None, revision="x")
    untied = dataclasses.replace(checkpoint.config, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"tensor lm_head\.weight: missing"):
        load_yes_minus_no(checkpoint.weight_files, untied, checkpoint.yes_no)


def test_a_file_that_is_no_safetensors_file_is_refused(changed):
    folder = changed()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a safetensors file"):
        load_changed(folder)
