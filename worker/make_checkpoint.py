"""Write a real Qwen3 checkpoint with seeded random weights, to try the service without downloading one.

It is what the published repositories hold: `config.json`, safetensors in bfloat16, the Qwen3 tokenizer and
sentence-transformers' files. Its vectors and scores mean nothing, but they differ between texts.
"""

import json
import lzma
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ByteSize, Field
from pydantic_settings import SettingsConfigDict
from safetensors.torch import save_file
from torch import Tensor

from runtime.settings import Positional, Settings
from worker.model.files import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE
from worker.model.pipeline import MODULES_FILE, PROMPTS_FILE, WEB_SEARCH_INSTRUCTION
from worker.model.shapes import PUBLISHED_SHAPES, Shape
from worker.model.task import ModelTask
from worker.model.tokenizer import END_OF_TEXT

_VOCAB_SIZE = 151_669  # entries of the tokenizer, as in the published 0.6B models
_END_OF_TEXT_ID = 151_643
_IM_END_ID = 151_645
_YES_ID, _NO_ID = 9693, 2152
_WEIGHT_STD = 0.02  # Qwen3's initializer_range
_NORM_NOISE_STD = 0.1  # around 1: weights of exactly 1 would hide a norm that is left out or swapped
_BFLOAT16_BYTES = 2

_RERANK_TEMPLATE = """\
{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") | first
    | default("INSTRUCTION") -%}
{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}
{%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%}
{{- "<|im_start|>system\\nJudge whether the Document meets the requirements based on the Query and the Instruct \
provided. Note that the answer can only be \\"yes\\" or \\"no\\".<|im_end|>\\n<|im_start|>user\\n" -}}
{{- "<Instruct>: " ~ instruction ~ "\\n<Query>: " ~ query ~ "\\n<Document>: " ~ document -}}
{{- "<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n" -}}
"""


_SMALL = Shape()


class CheckpointSettings(Settings):
    """Write a Qwen3 checkpoint with seeded random weights."""

    model_config = SettingsConfigDict(cli_prog_name="qwen3-make-checkpoint")

    out: Positional[Path] = Field(description="Folder to make; it must not exist or be empty.")
    task: Literal["embedding", "rerank"] = Field("embedding", description="What the checkpoint is for.")
    seed: int = Field(0, description="The same seed and shape give the same weights.")
    like: Literal["0.6B", "4B", "8B"] | None = Field(None, description="A published model's shape (1.2, 8, 15 GB).")
    hidden_size: int | None = Field(None, ge=1, description="Width of a token, and of an embedding.")
    intermediate_size: int | None = Field(None, ge=1, description="Width of the MLP.")
    layers: int | None = Field(None, ge=1, description="Number of decoder layers.")
    heads: int | None = Field(None, ge=1, description="Number of query heads; a multiple of --kv-heads.")
    kv_heads: int | None = Field(None, ge=1, description="Number of key and value heads.")
    head_dim: int | None = Field(None, ge=2, multiple_of=2, description="Width of a head.")
    max_input_tokens: int | None = Field(None, ge=1, description="max_position_embeddings of config.json.")
    untied: bool | None = Field(None, description="Give the lm_head weights of its own.")
    shard_size: ByteSize = Field(ByteSize(5 * 10**9), gt=0, description="Most bytes in a file, such as 2GB.")

    def shape(self) -> Shape:
        """The shape of --like, or the small one, with the fields that were given."""
        given: dict[str, Any] = {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_input_tokens,
            "tie_word_embeddings": None if self.untied is None else not self.untied,
        }
        base = PUBLISHED_SHAPES[self.like] if self.like else _SMALL
        return replace(base, **{field: value for field, value in given.items() if value is not None})


def main() -> None:
    settings = CheckpointSettings.from_command_line()
    if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
        sys.exit(f"{settings.out} exists and is not an empty folder")
    shape = settings.shape()
    if shape.num_attention_heads % shape.num_key_value_heads:
        sys.exit(f"{shape.num_attention_heads} heads are not a multiple of {shape.num_key_value_heads} kv-heads")
    make_checkpoint(
        settings.out,
        task=ModelTask(settings.task),
        seed=settings.seed,
        shape=shape,
        max_shard_bytes=settings.shard_size,
    )


def make_checkpoint(
    folder: Path, *, task: ModelTask, seed: int, shape: Shape = _SMALL, max_shard_bytes: int = 5 * 10**9
) -> None:
    """Write a checkpoint into `folder`, which is made; weights depend on `seed` and `shape` alone."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / CONFIG_FILE, _config(task, shape))
    _write_weights(folder, shape, seed=seed, max_shard_bytes=max_shard_bytes)
    _write_tokenizer(folder, task)
    _write_pipeline(folder, task, shape)


def _config(task: ModelTask, shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": _END_OF_TEXT_ID,
        "dtype": "bfloat16",
        "eos_token_id": _END_OF_TEXT_ID if task is ModelTask.EMBED else _IM_END_ID,
        "hidden_act": "silu",
        "initializer_range": _WEIGHT_STD,
        "max_window_layers": shape.num_hidden_layers,
        "model_type": "qwen3",
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 1_000_000,
        "sliding_window": None,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": _VOCAB_SIZE,
        **asdict(shape),
    }


def _write_weights(folder: Path, shape: Shape, *, seed: int, max_shard_bytes: int) -> None:
    """One file where everything fits, else numbered shards and their index; one shard in memory at a time."""
    generator = torch.Generator().manual_seed(seed)
    shards = _shards(dict(_tensor_shapes(shape)), max_shard_bytes)
    if len(shards) == 1:
        _save(folder / WEIGHTS_FILE, shards[0], generator)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _save(folder / name, shard, generator)
        weight_map |= dict.fromkeys(shard, name)
    num_bytes = sum(_num_bytes(size) for shard in shards for size in shard.values())
    _write_json(folder / WEIGHTS_INDEX_FILE, {"metadata": {"total_size": num_bytes}, "weight_map": weight_map})


def _tensor_shapes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, intermediate = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    yield "model.embed_tokens.weight", (_VOCAB_SIZE, hidden)
    for index in range(shape.num_hidden_layers):
        layer = f"model.layers.{index}"
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.self_attn.q_proj.weight", (queries, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (keys, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (keys, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, queries)
        yield f"{layer}.self_attn.q_norm.weight", (shape.head_dim,)
        yield f"{layer}.self_attn.k_norm.weight", (shape.head_dim,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        yield f"{layer}.mlp.gate_proj.weight", (intermediate, hidden)
        yield f"{layer}.mlp.up_proj.weight", (intermediate, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, intermediate)
    yield "model.norm.weight", (hidden,)
    if not shape.tie_word_embeddings:
        yield "lm_head.weight", (_VOCAB_SIZE, hidden)


def _shards(shapes: Mapping[str, tuple[int, ...]], max_shard_bytes: int) -> list[dict[str, tuple[int, ...]]]:
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled_bytes = 0
    for name, size in shapes.items():
        if shards[-1] and filled_bytes + _num_bytes(size) > max_shard_bytes:
            shards.append({})
            filled_bytes = 0
        shards[-1][name] = size
        filled_bytes += _num_bytes(size)
    return shards


def _num_bytes(size: tuple[int, ...]) -> int:
    return torch.Size(size).numel() * _BFLOAT16_BYTES


def _save(path: Path, shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator) -> None:
    tensors = {name: _random_weight(size, generator) for name, size in shapes.items()}
    save_file(tensors, path, metadata={"format": "pt"})  # transformers refuses files without this


def _random_weight(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Matrices around 0, norm weights (the vectors) around 1."""
    if len(size) == 1:
        return torch.normal(1.0, _NORM_NOISE_STD, size, generator=generator).bfloat16()
    return torch.normal(0.0, _WEIGHT_STD, size, generator=generator).bfloat16()


def _write_tokenizer(folder: Path, task: ModelTask) -> None:
    """The reranker's tokenizer as carried, or the embedding one: it appends <|endoftext|> to every text."""
    assets = files("worker") / "assets"
    tokenizer = lzma.decompress((assets / "qwen3-tokenizer.json.xz").read_bytes())
    settings = json.loads((assets / "tokenizer_config.json").read_text(encoding="utf-8"))
    if task is ModelTask.EMBED:
        content = json.loads(tokenizer)
        content["post_processor"] = {
            "type": "Sequence",
            "processors": [content["post_processor"], _append_end_of_text()],
        }
        tokenizer = json.dumps(content, ensure_ascii=False, indent=2).encode()
        settings |= {"eos_token": END_OF_TEXT, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / TOKENIZER_FILE).write_bytes(tokenizer)
    _write_json(folder / "tokenizer_config.json", settings)


def _append_end_of_text() -> dict[str, Any]:
    def text(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    def end(type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": END_OF_TEXT, "type_id": type_id}}

    return {
        "type": "TemplateProcessing",
        "single": [text("A", 0), end(0)],
        "pair": [text("A", 0), end(0), text("B", 1), end(1)],
        "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [_END_OF_TEXT_ID], "tokens": [END_OF_TEXT]}},
    }


def _write_pipeline(folder: Path, task: ModelTask, shape: Shape) -> None:
    """sentence-transformers' files, and for a reranker the chat template that it renders pairs with."""
    if task is ModelTask.EMBED:
        _write_embedding_pipeline(folder, shape)
    else:
        _write_rerank_pipeline(folder)


def _write_embedding_pipeline(folder: Path, shape: Shape) -> None:
    modules = ["Transformer", "Pooling", "Normalize"]
    _write_json(folder / MODULES_FILE, _modules({name: f"sentence_transformers.models.{name}" for name in modules}))
    pooling = {
        "word_embedding_dimension": shape.hidden_size,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    }
    (folder / "1_Pooling").mkdir()
    _write_json(folder / "1_Pooling" / "config.json", pooling)
    query_prompt = f"Instruct: {WEB_SEARCH_INSTRUCTION}\nQuery:"
    _write_prompts(folder, {"query": query_prompt, "document": ""}, similarity_fn_name="cosine")


def _write_rerank_pipeline(folder: Path) -> None:
    types = {
        "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "LogitScore": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
    }
    _write_json(folder / MODULES_FILE, _modules(types))
    (folder / "1_LogitScore").mkdir()
    _write_json(folder / "1_LogitScore" / "config.json", {"true_token_id": _YES_ID, "false_token_id": _NO_ID})
    template = _RERANK_TEMPLATE.replace("INSTRUCTION", WEB_SEARCH_INSTRUCTION)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    method = {"method": "forward", "method_output_name": "logits"}
    transformer = {
        "transformer_task": "text-generation",
        "modality_config": {"text": method, "message": {**method, "format": "flat"}},
        "module_output_name": "causal_logits",
    }
    _write_json(folder / "sentence_bert_config.json", transformer)
    _write_prompts(folder, {}, model_type="CrossEncoder")


def _modules(types: Mapping[str, str]) -> list[dict[str, Any]]:
    """Module 0 is the folder itself, the others have one each."""
    return [
        {"idx": index, "name": str(index), "path": f"{index}_{name}" if index else "", "type": type_name}
        for index, (name, type_name) in enumerate(types.items())
    ]


def _write_prompts(folder: Path, prompts: Mapping[str, str], **others: str) -> None:
    _write_json(folder / PROMPTS_FILE, {"prompts": prompts, "default_prompt_name": None, **others})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
