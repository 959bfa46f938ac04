"""The rules by which the authors of Qwen3-Embedding and Qwen3-Reranker evaluate. Pure: no model, no data."""

from dataclasses import dataclass, fields

DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
SIMILAR_TEXT = "Retrieve semantically similar text"
AUTHORS_MAX_INPUT_TOKENS = 8192  # a worker's --max-input-tokens
MAX_TEXT_BYTES = 1 << 20  # a gateway's default: no fewer than AUTHORS_MAX_INPUT_TOKENS of the longest token, 128 bytes
AUTHORS_FIRST_STAGE = "Qwen3-Embedding-0.6B"
AUTHORS_TOP_K = 100  # of its best documents, which a reranker gets
_SIMILARITY_TYPES = ("STS", "PairClassification")
_SYMMETRIC_TYPES = (*_SIMILARITY_TYPES, "Reranking")
_SYMMETRIC_TASKS = ("ArguAna", "CQADupstackGamingRetrieval", "CQADupstackUnixRetrieval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The authors' protocol; each field that is not its default is a deviation from it.

    `use_instructions`: queries, and texts of tasks without sides, carry an instruction.
    `similar_text`: STS and PairClassification have SIMILAR_TEXT in place of their own.
    `document_instructions`: documents of Reranking tasks, of ArguAna and of CQADupstack Gaming and Unix carry it too.
    `placeholder`: what stands for a text that is empty or white space only, which the service refuses.
    """

    use_instructions: bool = True
    similar_text: bool = True
    document_instructions: bool = True
    placeholder: str = "."

    def deviations(self) -> list[str]:
        """The names and values of what is not the authors'."""
        return [
            f"{field.name}={getattr(self, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInstruction:
    """What somebody says of one task: a sentence for queries, perhaps one for documents, and who says it."""

    query: str
    document: str | None = None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedInstruction:
    """What each side of a task is sent with, None for nothing. Texts of tasks without sides go as queries do."""

    query: str | None
    document: str | None
    source: str


def plan_instruction(task_name: str, task_type: str, said: TaskInstruction, protocol: Protocol) -> PlannedInstruction:
    """The instruction of each side of a task of which `said` is said."""
    if not protocol.use_instructions:
        return PlannedInstruction(query=None, document=None, source="switched off")
    if protocol.similar_text and task_type in _SIMILARITY_TYPES:
        said = TaskInstruction(query=SIMILAR_TEXT, source=f"protocol of {task_type}")
    return PlannedInstruction(
        query=said.query or None, document=_of_documents(task_name, task_type, said, protocol), source=said.source
    )


def sendable(text: str) -> str:
    """The text's first MAX_TEXT_BYTES of UTF-8; empty where that is white space only, which the service refuses."""
    cut = text if 4 * len(text) <= MAX_TEXT_BYTES else text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
    return cut if cut.strip() else ""


def _of_documents(task_name: str, task_type: str, said: TaskInstruction, protocol: Protocol) -> str | None:
    """Both texts of a similarity task are alike, whatever mteb calls their sides."""
    if not protocol.document_instructions and task_type not in _SIMILARITY_TYPES:
        return None
    if task_type in _SYMMETRIC_TYPES or task_name in _SYMMETRIC_TASKS:
        return said.document or said.query or None
    return said.document or None
