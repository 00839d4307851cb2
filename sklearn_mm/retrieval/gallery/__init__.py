"""Things with names, found by sentences and pictures: a gallery that is added to, saved and opened again."""

from sklearn_mm.retrieval.gallery._gallery import Gallery
from sklearn_mm.retrieval.gallery._result import SearchResult

__all__ = ["Gallery", "SearchResult"]
