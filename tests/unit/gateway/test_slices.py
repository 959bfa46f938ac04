"""Large calls are tokenised a slice at a time, and no further than they may go."""

import contextlib
from types import SimpleNamespace

import pytest

from gateway import responses, tokenization
from gateway.errors import CallError
from gateway.prompts import embed_prompt
from gateway.responses import tokenize_response
from gateway.tokenization import Tokenization, Truncation

TEXTS = [f"{'word ' * 99}{number}" for number in range(8)]


class CountingTokenizer:
    """Counts the texts that it is given."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer
        self.appended = tokenizer.appended
        self.template_ids = tokenizer.template_ids
        self.num_texts = 0

    def encode(self, texts):
        self.num_texts += len(texts) - 1  # the first is the shared part
        return self._tokenizer.encode(texts)

    def encode_with_offsets(self, texts):
        self.num_texts += len(texts)
        return self._tokenizer.encode_with_offsets(texts)


@pytest.fixture
def counting(embed_tokenizer, monkeypatch):
    for module in (tokenization, responses):
        monkeypatch.setattr(module, "SLICE_CHARS", 1200)  # two texts
    return CountingTokenizer(embed_tokenizer)


@pytest.fixture
def threads():
    with contextlib.closing(Tokenization(num_threads=1)) as found:
        yield found


@pytest.mark.parametrize(("most", "num_texts"), [(150, 2), (350, 4), (10_000, 8), (None, 8)])
async def test_a_call_of_too_many_tokens_is_not_tokenised_to_its_end(most, num_texts, counting, threads):
    prompt = embed_prompt(TEXTS, instruction=None)
    options = {"policy": Truncation.ERROR, "max_tokens": None, "max_total_tokens": most}
    if num_texts == len(TEXTS):
        assert len((await threads.tokenize(counting, prompt, **options)).tails) == num_texts
    else:
        with pytest.raises(CallError, match=f"more than {most} tokens"):
            await threads.tokenize(counting, prompt, **options)
    assert counting.num_texts == num_texts


async def test_tokens_that_no_client_could_receive_are_not_made(counting, threads, monkeypatch):
    task = SimpleNamespace(texts=TEXTS, appends=True, model=SimpleNamespace(tokenizer=counting))
    whole = await tokenize_response(task, threads)
    assert [len(sequence.ids) for sequence in whole.sequences] == [len(sequence.ends) for sequence in whole.sequences]
    assert counting.num_texts == len(whole.sequences) == len(TEXTS)
    monkeypatch.setattr(responses, "MAX_REPLY_BYTES", responses.TOKEN_BYTES * 150)
    with pytest.raises(CallError, match="larger than clients receive"):
        await tokenize_response(task, threads)
    assert counting.num_texts == len(TEXTS) + 2
