"""What is served, and every refusal by its message."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from worker.model import checkpoint as module
from worker.model.checkpoint import CheckpointError, ModelTask, resolve_checkpoint

WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"


def resolve(folder, *, task=None, name=None, revision=None):
    return resolve_checkpoint(str(folder), task=task, name=name, revision=revision)


def edit(path: Path, **changes):
    """Set fields of a JSON file; None removes a field."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def small_tokenizer(*, words=("yes", "no"), tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"), single=None):
    vocabulary = {word: index for index, word in enumerate(["?", "Explain", "gravity", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<|endoftext|>", *tokens])
    if single:
        special = [("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return tokenizer


def copy(checkpoint, folder):
    """All but the large files; the weights are looked for and hashed here, never loaded."""
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer.json"))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def embedding(embedding_checkpoint, tmp_path):
    """A copy whose files a test may change, with a tokenizer of a few words so that it is read quickly."""
    folder = copy(embedding_checkpoint, tmp_path / "my-embedding")
    small_tokenizer(single="$A <|endoftext|>").save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def rerank(rerank_checkpoint, tmp_path):
    folder = copy(rerank_checkpoint, tmp_path / "my-reranker")
    small_tokenizer().save(str(folder / "tokenizer.json"))
    edit(folder / "1_LogitScore" / "config.json", true_token_id=3, false_token_id=4)
    return folder


def test_an_embedding_checkpoint_is_read(embedding_checkpoint):
    found = resolve(embedding_checkpoint)
    assert (found.model_id, found.task, found.yes_no) == ("tiny-embedding", ModelTask.EMBED, None)
    assert (found.max_input_tokens, found.default_instruction) == (32768, WEB_SEARCH)
    assert found.tokenizer_json == (embedding_checkpoint / "tokenizer.json").read_bytes()
    assert [path.name for path in found.weight_files] == ["model.safetensors"]


def test_a_rerank_checkpoint_is_read(rerank_checkpoint):
    found = resolve(rerank_checkpoint, name="my/name", revision="r1")
    assert (found.model_id, found.task, found.yes_no) == ("my/name", ModelTask.RERANK, (9693, 2152))
    assert (found.revision, found.default_instruction) == ("r1", WEB_SEARCH)


def test_a_folders_revision_is_the_hash_of_what_it_holds(embedding):
    first = resolve(embedding).revision
    assert (len(first), int(first, 16) > 0) == (12, True)
    assert resolve(embedding).revision == first
    edit(embedding / "config_sentence_transformers.json", similarity_fn_name="dot")
    assert resolve(embedding).revision == first
    with (embedding / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x77")
    assert resolve(embedding).revision != first


def test_a_hub_model_is_downloaded_and_named_by_id_and_commit(embedding, monkeypatch):
    snapshot = embedding.rename(embedding.parent / "0123456789abcdef0123456789abcdef01234567")
    asked = {}

    def download(repository, **arguments):
        asked.update(arguments, repository=repository)
        return str(snapshot)

    monkeypatch.setattr(module, "snapshot_download", download)
    found = resolve("someone/model", revision="v1")
    assert (found.model_id, found.revision) == ("someone/model", "0123456789ab")
    assert (asked["repository"], asked["revision"]) == ("someone/model", "v1")
    assert not [pattern for pattern in asked["allow_patterns"] if pattern.endswith((".bin", ".py", "*"))]


def test_a_model_that_cannot_be_downloaded_is_named(monkeypatch):
    def download(*_, **__):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(module, "snapshot_download", download)
    with pytest.raises(CheckpointError, match=r"'no/such' is no folder here and was not downloaded: offline"):
        resolve("no/such")


def test_what_is_neither_folder_nor_hub_id_is_refused():
    with pytest.raises(CheckpointError, match="neither an existing folder nor a hub id"):
        resolve("/no/such/folder")


@pytest.mark.parametrize(
    ("name", "task"),
    [("Qwen3-Embedding-0.6B", ModelTask.EMBED), ("qwen3-reranker-4b", ModelTask.RERANK)],
)
def test_the_published_names_tell_the_task(name, task, embedding, rerank):
    folder = embedding if task is ModelTask.EMBED else rerank
    (folder / "modules.json").unlink()
    assert resolve(folder.rename(folder.parent / name)).task is task


def test_a_task_that_nothing_tells_must_be_given(rerank):
    (rerank / "modules.json").unlink()
    with pytest.raises(CheckpointError, match="the task must be given: embedding or rerank"):
        resolve(rerank)
    assert resolve(rerank, task=ModelTask.RERANK).yes_no == (3, 4)


def test_a_task_other_than_the_files_say_is_refused(embedding):
    with pytest.raises(CheckpointError, match=r"modules\.json: says embedding, but the task given is rerank"):
        resolve(embedding, task=ModelTask.RERANK)


def test_the_default_instruction_is_the_checkpoints_own(embedding, rerank):
    edit(embedding / "config_sentence_transformers.json", prompts={"query": "Instruct: Find it\nQuery:"})
    assert resolve(embedding).default_instruction == "Find it"
    edit(rerank / "config_sentence_transformers.json", prompts={"a": "Rank it"}, default_prompt_name="a")
    assert resolve(rerank).default_instruction == "Rank it"


def test_without_a_query_prompt_the_default_instruction_is_the_model_cards(embedding):
    (embedding / "config_sentence_transformers.json").unlink()
    assert resolve(embedding).default_instruction == WEB_SEARCH


def test_the_position_limit_is_capped_at_what_the_model_cards_promise(embedding):
    edit(embedding / "config.json", max_position_embeddings=40960)
    assert resolve(embedding).max_input_tokens == 32768
    edit(embedding / "config.json", max_position_embeddings=512)
    assert resolve(embedding).max_input_tokens == 512


def test_truncation_and_padding_saved_with_a_tokenizer_are_switched_off(embedding):
    tokenizer = small_tokenizer(single="$A <|endoftext|>")
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding()
    tokenizer.save(str(embedding / "tokenizer.json"))
    announced = Tokenizer.from_str(resolve(embedding).tokenizer_json.decode())
    assert (announced.truncation, announced.padding) == (None, None)


def test_the_older_and_the_newer_pooling_file_are_read(embedding):
    (embedding / "1_Pooling" / "config.json").write_text('{"pooling_mode": "lasttoken"}')
    assert resolve(embedding).task is ModelTask.EMBED


def test_an_embedding_model_saved_without_its_head_is_served(embedding):
    edit(embedding / "config.json", architectures=["Qwen3Model"])
    assert resolve(embedding).task is ModelTask.EMBED


def test_added_tokens_that_no_text_can_have_may_be_beyond_the_vocabulary(embedding):
    size = 3 + 2 + 1  # three words, yes and no, <|endoftext|>; the template tokens are never produced
    edit(embedding / "config.json", vocab_size=size)
    assert resolve(embedding).config.vocab_size == size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2', this engine computes 'qwen3'"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, r"architectures is \['Qwen3ForSequenceClass"),
        ({"architectures": None}, "architectures is None"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types: only full_attention"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config is \{'bits': 4\}"),
        ({"is_causal": False}, "is_causal is False"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling is .*yarn.* plain RoPE only"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is .*linear"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6}}, "rope_parameters is .*dynamic"),
        ({"rope_theta": None}, "rope_theta must be a positive number, not None"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps must be a positive number, not 'tiny'"),
        ({"head_dim": None}, "head_dim must be a positive integer, not None"),
        ({"head_dim": 7}, "head_dim is odd"),
        ({"hidden_size": 0}, "hidden_size must be a positive integer, not 0"),
        ({"num_key_value_heads": 3}, "num_attention_heads is not a multiple"),
    ],
)
def test_a_config_that_would_be_computed_differently_is_refused(changes, message, embedding):
    edit(embedding / "config.json", **changes)
    with pytest.raises(CheckpointError, match=rf"config\.json: {message}"):
        resolve(embedding)


def test_a_reranker_without_its_head_is_refused(rerank):
    edit(rerank / "config.json", architectures=["Qwen3Model"])
    with pytest.raises(CheckpointError, match=r"architectures is \['Qwen3Model'\], rerank needs Qwen3ForCausalLM"):
        resolve(rerank)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"config\.json: missing"),
        ("tokenizer.json", r"tokenizer\.json: missing"),
        ("model.safetensors", r"model\.safetensors: missing"),
        ("1_Pooling/config.json", r"1_Pooling/config\.json: missing, modules\.json names it"),
    ],
)
def test_a_missing_file_is_named(missing, message, embedding):
    (embedding / missing).unlink()
    with pytest.raises(CheckpointError, match=message):
        resolve(embedding)


def test_a_missing_shard_is_named(embedding):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (embedding / "model.safetensors.index.json").write_text(json.dumps(index))
    (embedding / "model.safetensors").rename(embedding / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors: missing"):
        resolve(embedding)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [({}, "weight_map is empty"), ({"a": "../other.safetensors"}, "which is not a file of the folder")],
)
def test_an_index_that_names_no_file_of_the_folder_is_refused(weight_map, message, embedding):
    (embedding / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        resolve(embedding)


def test_pickled_weights_are_refused_with_what_to_convert(embedding):
    (embedding / "model.safetensors").rename(embedding / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: pickled weights .* convert them"):
        resolve(embedding)


@pytest.mark.parametrize(("content", "message"), [("{", "not JSON"), ("[]", "not a JSON object")])
def test_a_file_that_is_no_json_object_is_refused(content, message, embedding):
    (embedding / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"config\.json: {message}"):
        resolve(embedding)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([{"type": "x.Transformer", "path": ""}], "needs Pooling"),
        (
            [{"type": "x.Pooling", "path": "1_Pooling"}, {"type": "x.Dense", "path": "2"}],
            "module Dense would change the result",
        ),
        ({"a": 1}, "not a list of modules"),
        ([{"type": "x.Pooling"}], "not a list of modules"),
    ],
)
def test_modules_that_are_not_ours_to_apply_are_refused(modules, message, embedding):
    (embedding / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=rf"modules\.json: {message}"):
        resolve(embedding)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"pooling_mode": "mean"}, "pooling_mode is 'mean'"),
        ({"pooling_mode_mean_tokens": True}, r"pooling_mode is \['mean_tokens'\]"),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": True},
            r"pooling_mode is \['mean_tokens', 'lasttoken'\]",
        ),
        ({"pooling_mode": "lasttoken", "include_prompt": False}, "include_prompt is false"),
    ],
)
def test_pooling_other_than_the_last_token_is_refused(pooling, message, embedding):
    (embedding / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(CheckpointError, match=rf"1_Pooling/config\.json: {message}"):
        resolve(embedding)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"query": "query: "}, "prompts.query is 'query: '"),
        ({"query": "Instruct: Find it\nQuery: "}, "prompts.query is .* not of the form"),
        ({"document": "passage: "}, "prompts.document is not empty"),
    ],
)
def test_prompts_other_than_qwen3s_are_refused(prompts, message, embedding):
    edit(embedding / "config_sentence_transformers.json", prompts=prompts)
    with pytest.raises(CheckpointError, match=rf"config_sentence_transformers\.json: {message}"):
        resolve(embedding)


@pytest.mark.parametrize(
    "single",
    [None, "$A <|endoftext|> <|endoftext|>", "<|endoftext|> $A", "<|endoftext|> $A <|endoftext|>"],
    ids=["nothing", "two", "in front", "both"],
)
def test_an_embedding_tokenizer_must_append_exactly_one_end_of_text(single, embedding):
    small_tokenizer(single=single).save(str(embedding / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"post_processor must add exactly one <\|endoftext\|> at the end"):
        resolve(embedding)


def test_a_rerank_tokenizer_must_append_nothing(rerank):
    small_tokenizer(single="$A <|endoftext|>").save(str(rerank / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="post_processor must add nothing"):
        resolve(rerank)


def test_yes_and_no_must_be_one_token_each(rerank):
    tokenizer = small_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(rerank / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"'yes' is 3 tokens, a reranker's answers are one each"):
        resolve(rerank)


def test_the_templates_tokens_must_exist(rerank):
    small_tokenizer(tokens=("<|im_start|>", "<|im_end|>")).save(str(rerank / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: has no token <think>"):
        resolve(rerank)


def test_token_ids_must_be_in_the_models_vocabulary(rerank):
    edit(rerank / "config.json", vocab_size=9)
    with pytest.raises(CheckpointError, match=r"has token id 9, config\.json: vocab_size is only 9"):
        resolve(rerank)


def test_a_file_that_is_no_tokenizer_is_refused(embedding):
    (embedding / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        resolve(embedding)


def test_logit_score_must_agree_with_the_tokenizer(rerank):
    edit(rerank / "1_LogitScore" / "config.json", true_token_id=4, false_token_id=3)
    with pytest.raises(CheckpointError, match=r"are \(4, 3\), tokenizer\.json's yes, no are \(3, 4\)"):
        resolve(rerank)


def test_logit_score_without_a_false_token_is_refused(rerank):
    edit(rerank / "1_LogitScore" / "config.json", false_token_id=None)
    with pytest.raises(CheckpointError, match=r"1_LogitScore/config\.json: .* must both be set, not 3 and None"):
        resolve(rerank)
