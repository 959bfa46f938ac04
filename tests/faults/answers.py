"""What an echo worker answers: functions of every token id, which clients compute again from their texts."""

import hashlib
from array import array
from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers, processors

DIMENSIONS = 64
END_OF_TEXT = "<|endoftext|>"
POISON = "POISON PILL"
TOKENIZER_FILE = "tokenizer.json"


def byte_tokenizer() -> bytes:
    """A tokenizer.json that is small and quick to load: one token a byte, and one at the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: place for place, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens([END_OF_TEXT])
    end = (END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END_OF_TEXT}", special_tokens=[end])
    return tokenizer.to_str().encode()


def poison_ids(tokenizer_json: bytes) -> "array[int]":
    """The token ids that kill an echo worker."""
    return array("i", Tokenizer.from_str(tokenizer_json.decode()).encode(POISON, add_special_tokens=False).ids)


def vector(ids: Sequence[int]) -> "array[float]":
    """DIMENSIONS float32 values, small integers."""
    digest = hashlib.shake_128(array("i", ids).tobytes()).digest(DIMENSIONS)
    return array("f", array("b", digest))


def logit(ids: Sequence[int]) -> float:
    """-8 to 8 in steps of 2^-8, exact in float32."""
    digest = hashlib.blake2b(array("i", ids).tobytes(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % 4097 / 256 - 8
