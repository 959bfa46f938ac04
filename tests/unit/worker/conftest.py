"""The engine under test and its oracle, transformers, on the same checkpoints."""

import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from worker.model.attention import Attention, select_attention
from worker.model.checkpoint import Checkpoint, resolve_checkpoint
from worker.model.kernels import block_maker, select_kernels
from worker.model.qwen3 import Qwen3
from worker.model.weights import load_weights, load_yes_minus_no
from worker.packing import pack

CPU = torch.device("cpu")
END_OF_TEXT = 151643


@cache
def resolve(folder: Path) -> Checkpoint:
    """Reads a tokenizer, which takes longer than the weights: a folder that was loaded once must not change."""
    return resolve_checkpoint(str(folder), task=None, name=None, revision="test")


def load_model(
    checkpoint: Checkpoint,
    dtype: torch.dtype = torch.float32,
    *,
    kernels: str = "auto",
    attention: Attention | None = None,
) -> Qwen3:
    weights = load_weights(
        checkpoint.weight_files,
        checkpoint.config,
        device=CPU,
        dtype=dtype,
        make_layer=block_maker(select_kernels(CPU, dtype, kernels), checkpoint.config),
    )
    return Qwen3(checkpoint.config, weights, attention or select_attention(CPU, dtype)[1])


@pytest.fixture(scope="session")
def load() -> Callable[..., Qwen3]:
    """Our model of a checkpoint folder, in float32 unless told; other keywords change its config."""

    def load(folder, dtype=torch.float32, *, kernels="auto", attention=None, **config):
        checkpoint = resolve(folder)
        changed = replace(checkpoint, config=replace(checkpoint.config, **config))
        return load_model(changed, dtype, kernels=kernels, attention=attention)

    return load


@pytest.fixture(scope="session")
def yes_minus_no() -> Callable[[Path], Tensor]:
    """The score head of a rerank checkpoint's folder."""

    def load(folder: Path) -> Tensor:
        checkpoint = resolve(folder)
        return load_yes_minus_no(checkpoint.weight_files, checkpoint.config, checkpoint.yes_no)

    return load


@pytest.fixture(scope="session")
def embedding_model(embedding_checkpoint) -> Qwen3:
    return load_model(resolve(embedding_checkpoint))


@pytest.fixture(scope="session")
def rerank_model(rerank_checkpoint) -> Qwen3:
    return load_model(resolve(rerank_checkpoint))


@pytest.fixture(scope="session")
def transformers_tokenizer(embedding_checkpoint):
    return AutoTokenizer.from_pretrained(embedding_checkpoint, padding_side="left")


@pytest.fixture(scope="session")
def transformers_embed(embedding_checkpoint) -> Callable[..., Tensor]:
    """The official way: left padding, last position of the last hidden state, (n, hidden) not normalised."""
    models = {}

    def embed(sequences: Sequence[Sequence[int]], dtype: torch.dtype = torch.float32) -> Tensor:
        if dtype not in models:
            models[dtype] = AutoModel.from_pretrained(embedding_checkpoint, dtype=dtype).eval()
        ids, mask = pad_left(sequences)
        with torch.inference_mode():
            return models[dtype](input_ids=ids, attention_mask=mask).last_hidden_state[:, -1]

    return embed


@pytest.fixture(scope="session")
def pad() -> Callable[..., tuple[Tensor, Tensor]]:
    return pad_left


@pytest.fixture(scope="session")
def run() -> Callable[..., Tensor]:
    """Our pooled hidden states of token id lists, in one batch."""
    return lambda model, sequences: model.forward(pack([array("i", ids) for ids in sequences], CPU))


@pytest.fixture(scope="session")
def sequences_of() -> Callable[..., list[list[int]]]:
    """Random token ids of the given lengths, each closed by <|endoftext|> as the tokenizer does."""

    def make(*lengths: int) -> list[list[int]]:
        chance = random.Random(str(lengths))
        return [[chance.randrange(END_OF_TEXT) for _ in range(length - 1)] + [END_OF_TEXT] for length in lengths]

    return make


def pad_left(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), END_OF_TEXT)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = torch.tensor(sequence)
        mask[row, longest - len(sequence) :] = 1
    return ids, mask
