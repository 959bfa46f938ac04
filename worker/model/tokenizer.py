"""The tokenizer's part of a checkpoint: it must produce exactly the ids that the published code would."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from worker.model.errors import CheckpointError
from worker.model.files import TOKENIZER_FILE
from worker.model.task import ModelTask

END_OF_TEXT = "<|endoftext|>"  # appended to every embedded text; not the tokenizer's eos_token
_RERANK_TEMPLATE_TOKENS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
_PROBE = "Explain gravity"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTokenizer:
    """`json` has neither truncation nor padding; `yes_no` are set for RERANK."""

    json: bytes
    yes_no: tuple[int, int] | None


def read_tokenizer(folder: Path, task: ModelTask, *, vocab_size: int) -> CheckedTokenizer:
    """Raises CheckpointError where the tokenizer would not do for `task` what Qwen3's does."""
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise CheckpointError(f"{TOKENIZER_FILE}: missing")
    content = path.read_bytes()
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(f"{TOKENIZER_FILE}: not a tokenizer: {error}") from error
    if tokenizer.truncation is not None or tokenizer.padding is not None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        content = tokenizer.to_str().encode()
    yes_no = _check_for_task(tokenizer, task, vocab_size=vocab_size)
    return CheckedTokenizer(json=content, yes_no=yes_no)


def _check_for_task(tokenizer: Tokenizer, task: ModelTask, *, vocab_size: int) -> tuple[int, int] | None:
    template_tokens = (END_OF_TEXT,) if task is ModelTask.EMBED else _RERANK_TEMPLATE_TOKENS
    template = [_single_id(tokenizer, token) for token in template_tokens]
    _check_range(tokenizer, template, vocab_size=vocab_size)
    if task is ModelTask.EMBED:
        _check_appended(tokenizer, template)
        return None
    _check_appended(tokenizer, [])
    return _single_word(tokenizer, "yes"), _single_word(tokenizer, "no")


def _single_id(tokenizer: Tokenizer, token: str) -> int:
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise CheckpointError(f"{TOKENIZER_FILE}: has no token {token}")
    return found


def _single_word(tokenizer: Tokenizer, word: str) -> int:
    ids: list[int] = tokenizer.encode(word, add_special_tokens=False).ids
    if len(ids) != 1:
        raise CheckpointError(f"{TOKENIZER_FILE}: {word!r} is {len(ids)} tokens, a reranker's answers are one each")
    return ids[0]


def _check_range(tokenizer: Tokenizer, template: list[int], *, vocab_size: int) -> None:
    """Only ids that can occur count: users' texts are never encoded to added tokens.

    Qwen3-Embedding-4B and -8B have 151,665 rows, fewer than the tokens that some copies of their tokenizer add.
    """
    largest = max([*tokenizer.get_vocab(with_added_tokens=False).values(), *template])
    if largest >= vocab_size:
        raise CheckpointError(f"{TOKENIZER_FILE}: has token id {largest}, config.json: vocab_size is only {vocab_size}")


def _check_appended(tokenizer: Tokenizer, expected: list[int]) -> None:
    plain = tokenizer.encode(_PROBE, add_special_tokens=False).ids
    full = tokenizer.encode(_PROBE).ids
    if full != plain + expected:
        wanted = f"exactly one {END_OF_TEXT} at the end" if expected else "nothing"
        raise CheckpointError(f"{TOKENIZER_FILE}: post_processor must add {wanted}, but turns {plain} into {full}")
