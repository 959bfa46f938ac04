"""Search among encoded documents with another look at the best ones, as vector databases do it."""

from typing import Any

from mteb.models import ModelMeta
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.types import CorpusDatasetType, QueryDatasetType, RetrievalOutputType, TopRankedDocumentsType

from evaluation.service.embedder import Vectors
from evaluation.service.encoder import Encoder
from evaluation.service.session import Session

_BEHIND = 4.0  # two cosines never differ by as much


class RescoringSearch:
    """mteb's SearchProtocol. Documents are found as `Encoder` finds them, both sides encoded as the settings say.

    The `settings.rescore` best of each query then get the cosine of float32 vectors of both sides, of the same width.
    The others stay behind them, in their order.
    """

    def __init__(self, session: Session, source: Vectors) -> None:
        self.session = session
        self._encoded = SearchEncoderWrapper(Encoder(session, source))
        self._exact = SearchEncoderWrapper(Encoder(session, source, "float32"))

    @property
    def mteb_model_meta(self) -> ModelMeta:
        return self.session.model_meta

    def index(self, corpus: CorpusDatasetType, **options: Any) -> None:
        for search in (self._encoded, self._exact):
            search.index(corpus, **options)

    def search(
        self,
        queries: QueryDatasetType,
        *,
        top_k: int,
        top_ranked: TopRankedDocumentsType | None = None,
        **options: Any,
    ) -> RetrievalOutputType:
        """Scores by query and document: cosines of float32 vectors, and four less than cosines of encoded ones."""
        rescore = self.session.settings.rescore
        found = self._encoded.search(queries, top_k=max(top_k, rescore), top_ranked=top_ranked, **options)
        best = {
            query: sorted(scores, key=scores.__getitem__, reverse=True)[:rescore] for query, scores in found.items()
        }
        exact = self._exact.search(queries, top_k=rescore, top_ranked=best, **options)
        return {query: _behind(scores) | exact[query] for query, scores in found.items()}


def _behind(scores: dict[str, float]) -> dict[str, float]:
    return {document: score - _BEHIND for document, score in scores.items()}
