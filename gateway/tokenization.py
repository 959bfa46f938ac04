"""From a prompt to token ids, cut where the policy says so. Only a few hundred tokens at most hold the event loop.

Users' parts are encoded with every special-token string taken as ordinary text: otherwise a document could close the
reranker's prompt and answer for itself.
"""

import asyncio
import os
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import TypeVar

from tokenizers import AddedToken, Encoding, Tokenizer

from gateway.errors import invalid_field
from gateway.prompts import TEMPLATE_PARTS, Prompt
from jobqueue.cost import split_by_size
from jobqueue.messages import TokenIds

T = TypeVar("T")


# Characters that are tokenised in one go, some tens of milliseconds.
SLICE_CHARS = 256 * 1024

# Characters of a call that are tokenised at once, in a few tenths of a millisecond: a thread costs as much. A text
# costs as many by itself, however short it is.
INLINE_CHARS = 2048
TEXT_CHARS = 32

# Characters of a text that decide how its label is cut into tokens: more than any token has.
LABEL_CONTEXT = 512


class Truncation(IntEnum):
    """What to do with a text that is too long. Values equal the public contract's; a test holds them together."""

    ERROR = 1
    END = 2
    START = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedPrompt:
    """Sequence i is `prefix + tails[i]`; `truncated[i]` says whether its text was cut."""

    prefix: TokenIds
    tails: tuple[TokenIds, ...]
    truncated: tuple[bool, ...]
    elapsed_us: int

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence, prefix included."""
        return [len(self.prefix) + len(tail) for tail in self.tails]


class PromptTokenizer:
    """A model's tokenizer: for the template, for users' texts, and what it appends to every text."""

    def __init__(self, tokenizer_json: bytes) -> None:
        tokenizer = Tokenizer.from_buffer(tokenizer_json)
        # While special tokens are recognised: a tokenizer of its own for the template would take 60 MB.
        self._template_ids = {part: _ids(tokenizer, part) for part in TEMPLATE_PARTS}
        self.appended: TokenIds = array("i", tokenizer.encode("").ids)
        self._users = _for_users(tokenizer)

    def template_ids(self, part: str) -> TokenIds:
        """Of one of TEMPLATE_PARTS."""
        return self._template_ids[part]

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Users' texts, nothing appended, without offsets."""
        return self._users.encode_batch_fast(list(texts), add_special_tokens=False)

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding]:
        """The same, with the code points that each token covers."""
        return self._users.encode_batch(list(texts), add_special_tokens=False)

    def num_label_tokens(self, label: str, text: str) -> int:
        """How many tokens of label and text begin in the label, white space at its end not counted."""
        head = label + text[:LABEL_CONTEXT]
        (encoding,) = self.encode_with_offsets([head])
        return sum(start < len(label.rstrip()) for start, _ in encoding.offsets)


def _ids(tokenizer: Tokenizer, text: str) -> TokenIds:
    return array("i", tokenizer.encode(text, add_special_tokens=False).ids)


def _for_users(tokenizer: Tokenizer) -> Tokenizer:
    """Take every special-token string as text. `<think>` and others are not marked special as published."""
    added = tokenizer.get_added_tokens_decoder().values()
    tokenizer.add_special_tokens([AddedToken(token.content, special=True, normalized=False) for token in added])
    tokenizer.encode_special_tokens = True
    return tokenizer


class Tokenization:
    """Tokenises in threads, so that the event loop stays free; tokenizers releases the GIL."""

    def __init__(self, *, num_threads: int) -> None:
        # The threads are ours. The library's own, for the texts of one call, cost more than a short text does.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="tokenize")

    async def tokenize(
        self,
        tokenizer: PromptTokenizer,
        prompt: Prompt,
        *,
        policy: Truncation,
        max_tokens: int | None,
        max_total_tokens: int | None = None,
    ) -> TokenizedPrompt:
        """See `tokenize`. A large call goes in slices: others get their turn, and a cancelled one stops.

        So does one of more than `max_total_tokens`, by CallError.
        """
        sizes = [len(text) for text in prompt.texts]
        if sum(sizes) + TEXT_CHARS * len(sizes) + len(prompt.shared) <= INLINE_CHARS:
            tokenized = tokenize(tokenizer, prompt, policy, max_tokens)
            _check_total([tokenized], max_total_tokens, prompt.field)
            return tokenized
        slices: list[TokenizedPrompt] = []
        for part in split_by_size(sizes, SLICE_CHARS):
            slices.append(await self.run(partial(tokenize, tokenizer, prompt, policy, max_tokens, part)))
            _check_total(slices, max_total_tokens, prompt.field)
        return TokenizedPrompt(
            prefix=slices[0].prefix,
            tails=tuple(tail for part in slices for tail in part.tails),
            truncated=tuple(cut for part in slices for cut in part.truncated),
            elapsed_us=sum(part.elapsed_us for part in slices),
        )

    async def run(self, work: Callable[[], T]) -> T:
        """Other work on tokens, in the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


def _check_total(slices: Iterable[TokenizedPrompt], most: int | None, field: str) -> None:
    if most is not None and sum(sum(part.lengths) for part in slices) > most:
        raise invalid_field(field, f"more than {most} tokens, which is the most of one call; split the call")


def tokenize(
    tokenizer: PromptTokenizer,
    prompt: Prompt,
    policy: Truncation,
    max_tokens: int | None,
    part: range | None = None,
) -> TokenizedPrompt:
    """Token ids of every prompt, or of the texts in `part`, none longer than `max_tokens` (None: no limit).

    Template, instruction, a reranker's query and the appended token always survive a cut. Raises CallError naming the
    text that is too long under ERROR, or the query that leaves no room for a document.
    """
    started = time.perf_counter()
    part = range(len(prompt.texts)) if part is None else part
    shared, *encodings = tokenizer.encode([prompt.shared, *(prompt.label + prompt.texts[index] for index in part)])
    prefix = tokenizer.template_ids(prompt.template_head) + array("i", shared.ids)
    suffix = tokenizer.template_ids(prompt.template_tail) + (tokenizer.appended if prompt.appends else array("i"))
    num_fixed = len(prefix) + len(suffix)
    kept = [
        _fit(
            tokenizer,
            encoding,
            prompt,
            index,
            policy,
            num_fixed=num_fixed,
            max_tokens=max_tokens or len(encoding) + num_fixed,
        )
        for index, encoding in zip(part, encodings, strict=True)
    ]
    return TokenizedPrompt(
        prefix=prefix,
        tails=tuple(array("i", ids) + suffix for ids in kept),
        truncated=tuple(len(ids) < len(encoding) for ids, encoding in zip(kept, encodings, strict=True)),
        elapsed_us=int((time.perf_counter() - started) * 1e6),
    )


def _fit(
    tokenizer: PromptTokenizer,
    encoding: Encoding,
    prompt: Prompt,
    index: int,
    policy: Truncation,
    *,
    num_fixed: int,
    max_tokens: int,
) -> list[int]:
    """The ids of label and text that fit beside the fixed parts. The label stays before what is left of the text."""
    ids, room = encoding.ids, max_tokens - num_fixed
    if len(ids) <= room:
        return ids
    num_label = tokenizer.num_label_tokens(prompt.label, prompt.texts[index]) if prompt.label else 0
    if room <= num_label:
        raise invalid_field(
            prompt.shared_field or f"{prompt.field}[{index}]",
            f"leaves no room for a text within the model's {max_tokens} tokens of input",
        )
    if policy is Truncation.ERROR:
        raise invalid_field(
            f"{prompt.field}[{index}]",
            f"{len(ids) + num_fixed} tokens with its template, the model takes {max_tokens}; see truncation_policy",
        )
    return ids[:room] if policy is Truncation.END else ids[:num_label] + ids[len(ids) - room + num_label :]
