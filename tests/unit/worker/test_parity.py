"""The packed forward pass against transformers and sentence-transformers, and bugs that must not pass for it."""

import dataclasses
from array import array
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention
from transformers import AutoModelForCausalLM, AutoTokenizer

from worker.heads import score_rows
from worker.model.attention import sdpa
from worker.packing import pack

LEAST_COSINE = 0.999999
LARGEST_SCORE_DIFFERENCE = 2e-6
CPU = torch.device("cpu")

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
PAIRS = [
    ("What is the capital of China?", "The capital of China is Beijing."),
    ("Explain gravity", "Gravity is a force that attracts two bodies towards each other. " * 20),
    ("日本の首都は?", "東京です。\n"),
    ("x", "y"),
]


def least_cosine(ours, theirs) -> float:
    return float(cosine_similarity(ours.double(), theirs.double()).min())


@pytest.mark.parametrize(
    "lengths",
    [
        [1],
        [2],
        [700],
        [33] * 4,
        [1] * 3,
        [1, 2, 3, 5, 8, 130, 21, 64, 1],
        [512, 8, 256, 9],
        pytest.param([8192], id="8192"),
    ],
)
def test_a_batch_of_any_lengths_has_the_vectors_of_transformers(
    lengths, embedding_model, transformers_embed, run, sequences_of
):
    sequences = sequences_of(*lengths)
    ours, theirs = run(embedding_model, sequences), transformers_embed(sequences)
    assert ours.shape == (len(lengths), embedding_model.config.hidden_size)
    assert least_cosine(ours, theirs) >= LEAST_COSINE
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_text_alone_has_the_vector_it_has_in_a_batch(embedding_model, run, sequences_of):
    sequences = sequences_of(40, 40, 7, 300, 1)
    alone = torch.cat([run(embedding_model, [sequence]) for sequence in sequences])
    assert least_cosine(run(embedding_model, sequences), alone) >= LEAST_COSINE


def test_a_checkpoint_has_the_vectors_of_sentence_transformers(
    embedding_checkpoint, embedding_model, transformers_tokenizer, run
):
    texts = ["Explain gravity", "The capital of China is Beijing. " * 30, "é", " "]
    model = SentenceTransformer(
        str(embedding_checkpoint), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True
    )
    theirs = torch.from_numpy(model.encode([*texts, model.prompts["query"] + "x"]))
    ids = [transformers_tokenizer(text)["input_ids"] for text in [*texts, f"Instruct: {INSTRUCTION}\nQuery:x"]]
    assert least_cosine(run(embedding_model, ids), theirs) >= LEAST_COSINE


def test_bfloat16_is_as_near_to_float32_as_transformers_bfloat16(
    load, embedding_checkpoint, transformers_embed, run, sequences_of
):
    sequences = sequences_of(*range(4, 260, 8))
    exact = transformers_embed(sequences).double()
    ours = run(load(embedding_checkpoint, torch.bfloat16), sequences)
    theirs = transformers_embed(sequences, torch.bfloat16)
    assert ours.dtype == torch.bfloat16
    our_error = (1 - cosine_similarity(ours.double(), exact)).mean()
    assert our_error <= 1.5 * (1 - cosine_similarity(theirs.double(), exact)).mean()


def without_mask(q, k, v, cu_seqlens, *_):  # of sequences that share nothing
    """Attention in which every token sees its whole sequence."""
    groups = q.shape[1] // k.shape[1]
    out = torch.empty_like(q)
    for begin, end in pairwise(cu_seqlens.tolist()):
        heads = (
            x[begin:end].transpose(0, 1) for x in (q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))
        )
        out[begin:end] = scaled_dot_product_attention(*heads).transpose(0, 1)
    return out


def all_but_the_last_layer(broken):
    """The last layer's one query per sequence sees all keys anyway."""
    return lambda q, k, *rest: (broken if len(q) == len(k) else sdpa)(q, k, *rest)


def packed(sequences):
    return pack([array("i", ids) for ids in sequences], CPU)


def off_by_one(batch):
    return dataclasses.replace(batch, last_rows=(batch.last_rows - 1).clamp(min=0))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda load, ids: load(rms_norm_eps=1e-5).forward(packed(ids)), id="eps 1e-5"),
        pytest.param(lambda load, ids: load(rope_theta=1e4).forward(packed(ids)), id="theta 1e4"),
        pytest.param(
            lambda load, ids: load(attention=all_but_the_last_layer(without_mask)).forward(packed(ids)), id="no mask"
        ),
        pytest.param(lambda load, ids: load().forward(off_by_one(packed(ids))), id="off-by-one pooling"),
        pytest.param(lambda load, ids: load().forward(packed([[*i, i[-1]] for i in ids])), id="doubled end"),
    ],
)
def test_a_seeded_bug_falls_below_the_bar(wrong, load, embedding_checkpoint, transformers_embed, sequences_of):
    sequences = sequences_of(24, 24, 100)
    ours = wrong(partial(load, embedding_checkpoint), sequences)
    assert least_cosine(ours, transformers_embed(sequences)) < LEAST_COSINE


@pytest.fixture(scope="module")
def rerank_ids(rerank_checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(rerank_checkpoint)

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False)

    return [
        encode(PREFIX) + encode(f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>: {document}") + encode(SUFFIX)
        for query, document in PAIRS
    ]


@pytest.fixture(scope="module")
def our_scores(rerank_checkpoint, rerank_model, yes_minus_no):
    weight = yes_minus_no(rerank_checkpoint)

    def score(sequences) -> np.ndarray:
        rows = score_rows(rerank_model.forward(packed(sequences)), weight).rows
        return 1 / (1 + np.exp(-np.frombuffer(rows, "<f4").astype(np.float64)))

    return score


def test_rerank_scores_are_those_of_the_official_code(rerank_checkpoint, our_scores, rerank_ids, pad):
    oracle = AutoModelForCausalLM.from_pretrained(rerank_checkpoint, dtype=torch.float32).eval()
    ids, mask = pad(rerank_ids)
    with torch.inference_mode():
        logits = oracle(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits[:, -1, [2152, 9693]]
    theirs = torch.log_softmax(logits, dim=1)[:, 1].exp().numpy()
    assert np.ptp(theirs) > 1e-3, "the scores must differ for their equality to say something"
    assert np.abs(our_scores(rerank_ids) - theirs).max() <= LARGEST_SCORE_DIFFERENCE
    alone = np.concatenate([our_scores([sequence]) for sequence in rerank_ids])
    assert np.abs(alone - theirs).max() <= LARGEST_SCORE_DIFFERENCE


def test_a_checkpoint_has_the_tokens_and_scores_of_sentence_transformers(rerank_checkpoint, our_scores, rerank_ids):
    model = CrossEncoder(
        str(rerank_checkpoint), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True
    )
    features = model[0].preprocess(PAIRS)
    kept = [
        row[mask.bool()].tolist() for row, mask in zip(features["input_ids"], features["attention_mask"], strict=True)
    ]
    assert kept == rerank_ids
    assert np.abs(our_scores(rerank_ids) - model.predict(PAIRS)).max() <= LARGEST_SCORE_DIFFERENCE
