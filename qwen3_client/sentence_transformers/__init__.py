"""sentence-transformers' SentenceTransformer and CrossEncoder, over a model that a service runs.

    from qwen3_client.sentence_transformers import SentenceTransformer

in place of the library's own, and `client=Client(...)` in place of what says how to load the model. Neither the library
nor torch is needed. Every keyword of the library (6.2) is honoured or refused by its name; docs/clients.md lists them.
"""

from qwen3_client.sentence_transformers.cross_encoder import CrossEncoder
from qwen3_client.sentence_transformers.sentence_transformer import SentenceTransformer

__all__ = ["CrossEncoder", "SentenceTransformer"]
