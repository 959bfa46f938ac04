from enum import StrEnum


class ModelTask(StrEnum):
    EMBED = "embedding"
    RERANK = "rerank"
