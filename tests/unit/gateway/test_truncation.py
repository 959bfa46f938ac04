"""Texts that are too long: cut to the exact length, or refused with the numbers, and never in silence."""

import grpc
import pytest

from gateway.errors import CallError
from gateway.prompts import embed_prompt, rerank_prompt
from gateway.tokenization import Truncation, tokenize

END_OF_TEXT = 151643
SUFFIX_IDS = [151645, 198, 151644, 77091, 198, 151667, 271, 151668, 271]
WORDS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def run(tokenizer, prompt, policy, max_tokens):
    found = tokenize(tokenizer, prompt, policy, max_tokens)
    return [[*found.prefix, *tail] for tail in found.tails], found.truncated


def refused(tokenizer, prompt, policy, max_tokens) -> CallError:
    with pytest.raises(CallError) as caught:
        tokenize(tokenizer, prompt, policy, max_tokens)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    return caught.value


@pytest.mark.parametrize("max_tokens", range(2, 15))
def test_the_end_is_cut_and_the_appended_token_survives(max_tokens, embed_tokenizer):
    [whole], _ = run(embed_tokenizer, embed_prompt([WORDS], instruction=None), Truncation.END, None)
    [ids], [cut] = run(embed_tokenizer, embed_prompt([WORDS], instruction=None), Truncation.END, max_tokens)
    assert ids == [*whole[: max_tokens - 1], END_OF_TEXT]
    assert cut


@pytest.mark.parametrize("max_tokens", range(2, 15))
def test_the_start_is_cut_and_the_appended_token_survives(max_tokens, embed_tokenizer):
    [whole], _ = run(embed_tokenizer, embed_prompt([WORDS], instruction=None), Truncation.START, None)
    [ids], [cut] = run(embed_tokenizer, embed_prompt([WORDS], instruction=None), Truncation.START, max_tokens)
    assert ids == whole[-max_tokens:]
    assert cut


@pytest.mark.parametrize("policy", [Truncation.ERROR, Truncation.END, Truncation.START])
def test_a_text_that_just_fits_is_not_cut(policy, embed_tokenizer):
    [whole], _ = run(embed_tokenizer, embed_prompt([WORDS], instruction=None), policy, None)
    [ids], [cut] = run(embed_tokenizer, embed_prompt([WORDS], instruction=None), policy, len(whole))
    assert (ids, cut) == (whole, False)


def test_a_cut_query_keeps_instruction_and_label(embed_tokenizer, official_embed):
    prompt = embed_prompt([WORDS], instruction="Retrieve")
    label = official_embed("Instruct: Retrieve\nQuery:")[:-1]
    room = 4
    [end], _ = run(embed_tokenizer, prompt, Truncation.END, len(label) + room + 1)
    [start], _ = run(embed_tokenizer, prompt, Truncation.START, len(label) + room + 1)
    text = official_embed(WORDS)[:-1]
    assert start == [*label, *text[-room:], END_OF_TEXT]
    assert end[: len(label) - 1] == label[:-1]
    assert end == [*official_embed(f"Instruct: Retrieve\nQuery:{WORDS}")[: len(label) + room], END_OF_TEXT]


@pytest.mark.parametrize("policy", [Truncation.END, Truncation.START])
def test_a_cut_pair_keeps_template_instruction_and_query(policy, rerank_tokenizer, official_rerank):
    prompt = rerank_prompt("the query", [WORDS], instruction="Judge", field="documents")
    whole = official_rerank("Judge", "the query", WORDS)
    max_tokens = len(whole) - 7
    [ids], [cut] = run(rerank_tokenizer, prompt, policy, max_tokens)
    head = [*tokenize(rerank_tokenizer, prompt, policy, max_tokens).prefix, *rerank_tokenizer.encode([">:"])[0].ids]
    body = whole[len(head) : -len(SUFFIX_IDS)]
    kept = body[:-7] if policy is Truncation.END else body[7:]
    assert ids == [*head, *kept, *SUFFIX_IDS]
    assert len(ids) == max_tokens
    assert cut


def test_every_text_of_a_call_is_cut_on_its_own(embed_tokenizer):
    texts = ["short", WORDS, "also short", WORDS * 9]
    found, truncated = run(embed_tokenizer, embed_prompt(texts, instruction=None), Truncation.END, 8)
    assert truncated == (False, True, False, True)
    assert [len(ids) for ids in found] == [2, 8, 3, 8]


def test_an_error_names_the_text_and_both_numbers(embed_tokenizer):
    [whole], _ = run(embed_tokenizer, embed_prompt([WORDS], instruction=None), Truncation.END, None)
    error = refused(embed_tokenizer, embed_prompt(["short", WORDS], instruction=None), Truncation.ERROR, 9)
    assert error.field == "inputs[1]"
    assert str(len(whole)) in error.message
    assert "9" in error.message


def test_an_error_of_a_pair_names_the_document_and_both_numbers(rerank_tokenizer, official_rerank):
    prompt = rerank_prompt("q", ["short", "short", WORDS], instruction="Judge", field="documents")
    num_tokens = len(official_rerank("Judge", "q", WORDS))
    error = refused(rerank_tokenizer, prompt, Truncation.ERROR, num_tokens - 1)
    assert error.field == "documents[2]"
    assert f"{num_tokens} tokens" in error.message
    assert f"takes {num_tokens - 1}" in error.message


@pytest.mark.parametrize("policy", [Truncation.ERROR, Truncation.END, Truncation.START])
def test_an_instruction_that_leaves_no_room_is_named(policy, embed_tokenizer):
    error = refused(embed_tokenizer, embed_prompt(["text"], instruction=WORDS), policy, 12)
    assert error.field == "config.instruction"
    assert "12" in error.message


@pytest.mark.parametrize("policy", [Truncation.ERROR, Truncation.END, Truncation.START])
def test_a_query_that_leaves_no_room_is_named(policy, rerank_tokenizer):
    prompt = rerank_prompt(WORDS * 9, ["document"], instruction="Judge", field="documents")
    error = refused(rerank_tokenizer, prompt, policy, 120)
    assert error.field == "query"
    assert "120" in error.message


def test_a_reranker_s_instruction_that_leaves_no_room_is_named(rerank_tokenizer):
    prompt = rerank_prompt("q", ["document"], instruction=WORDS * 9, field="documents")
    assert refused(rerank_tokenizer, prompt, Truncation.END, 120).field == "instruction"


def test_one_token_of_text_beside_the_fixed_parts_is_enough(rerank_tokenizer, official_rerank):
    prompt = rerank_prompt("a query", [WORDS], instruction="Judge", field="documents")
    fixed = len(official_rerank("Judge", "a query", "")) - 1  # `>: ` is two tokens, `>:` before a text one
    for policy in (Truncation.END, Truncation.START):
        [ids], [cut] = run(rerank_tokenizer, prompt, policy, fixed + 1)
        assert (len(ids), cut) == (fixed + 1, True)
        assert ids[-len(SUFFIX_IDS) :] == SUFFIX_IDS
        assert refused(rerank_tokenizer, prompt, policy, fixed).field == "query"


def test_without_a_limit_nothing_is_cut(embed_tokenizer):
    [ids], [cut] = run(embed_tokenizer, embed_prompt([WORDS * 500], instruction=None), Truncation.ERROR, None)
    assert len(ids) > 7000
    assert not cut
