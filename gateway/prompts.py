"""The models' prompts. The server owns the template: clients send texts.

Sources: the models' cards, README and examples (QwenLM/Qwen3-Embedding); where those disagree, docs/decisions says
what is done here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

RERANK_HEAD = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
RERANK_TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
TEMPLATE_PARTS = ("", RERANK_HEAD, RERANK_TAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Prompt i is template_head + shared + label + texts[i] + template_tail, and what the tokenizer appends.

    Special tokens are recognised in the two template parts only, each one of TEMPLATE_PARTS. `shared` is the part that
    all texts share; it ends, and `label` begins, at a place where no token ever spans, so that both sides may be
    tokenised on their own.
    """

    template_head: str = ""
    shared: str = ""
    label: str = ""
    texts: Sequence[str]
    template_tail: str = ""
    appends: bool
    field: str  # of the request: where the texts stand
    shared_field: str = ""  # and most of what fills `shared`


def embed_prompt(texts: Sequence[str], *, instruction: str | None) -> Prompt:
    """Texts as they are, or behind an instruction; without a space after `Query:`, as the model was trained."""
    if instruction is None:
        return Prompt(texts=texts, appends=True, field="inputs")
    return Prompt(
        shared=f"Instruct: {instruction}\nQuery",
        label=":",
        texts=texts,
        appends=True,
        field="inputs",
        shared_field="config.instruction",
    )


def rerank_prompt(query: str, documents: Sequence[str], *, instruction: str, field: str) -> Prompt:
    """The official template around query and documents; `field` is where the documents stand in the request."""
    return Prompt(
        template_head=RERANK_HEAD,
        shared=f"<Instruct>: {instruction}\n<Query>: {query}\n<Document",
        label=">: ",
        texts=documents,
        template_tail=RERANK_TAIL,
        appends=False,
        field=field,
        shared_field="query" if len(query) >= len(instruction) else "instruction",
    )
