"""How near what was asked is to what a gallery holds."""

import numpy as np

from sklearn_mm.retrieval.gallery._embedder import Embedder
from sklearn_mm.retrieval.gallery._queries import Queries
from sklearn_mm.retrieval.gallery._vectors import Vectors
from sklearn_mm.towers import n_rows_of

__all__ = ["Scoring"]

_SPREAD_SAMPLE = 1000  # items by which the parts of a mixture are brought to one scale


class Scoring:
    """Find the places of the items nearest to queries, with scores, best first.

    Parameters
    ----------
    embedder : Embedder
    vectors : Vectors
        Those of the gallery, which grow and shrink with it.
    """

    def __init__(self, embedder: Embedder, vectors: Vectors) -> None:
        self._embedder = embedder
        self._vectors = vectors

    def search(self, queries: Queries, k: int, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if self._embedder.similarity != "cosine":
            return self._search_by_order(queries, k, rows)
        return self.nearest(self.vectors_of(queries), k, rows)

    def nearest(self, vectors: np.ndarray, k: int, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if not k:
            return np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64)
        return self._vectors.search(vectors, k, rows)

    def vectors_of(self, queries: Queries) -> np.ndarray:
        """Return a vector for each query, (n_queries, n_columns) float32."""
        vectors: dict[bool, np.ndarray] = {}  # of sentences (True), and of pictures
        if queries.texts:
            vectors[True] = self._embedder.sentences(queries.texts)
        if n_rows_of(queries.images):
            vectors[False] = self._embedder.pictures(queries.images)
        return np.stack(
            [
                vectors[parts[0].is_text][parts[0].row]
                if len(parts) == 1
                else self.mixed(
                    np.stack([vectors[part.is_text][part.row] for part in parts]), [part.weight for part in parts]
                )
                for parts in queries.parts
            ]
        )

    def mixed(self, vectors: np.ndarray, weights: list[float]) -> np.ndarray:
        """Return the vector whose scores are the weighted sum of others', each divided by its spread here.

        Pictures are nearer to pictures than sentences are: without the division a sentence would count for nothing.
        """
        places = np.unique(
            np.linspace(0, len(self._vectors) - 1, min(len(self._vectors), _SPREAD_SAMPLE)).astype(np.int64)
        )
        spreads = np.std(vectors.astype(np.float64) @ self._vectors.take(places).T, axis=1)
        factors = np.array(weights) / np.where(spreads > np.finfo(np.float32).eps, spreads, 1)
        joined = factors @ vectors.astype(np.float64)
        width = len(joined) - self._embedder.corrects_hubs
        length = np.linalg.norm(joined[:width])
        mixed: np.ndarray = (joined / (length if length > 0 else 1)).astype(np.float32)
        return mixed

    def _search_by_order(self, queries: Queries, k: int, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if any(len(parts) > 1 for parts in queries.parts):
            raise ValueError(
                f"a mixture adds cosines, and the model compares by similarity={self._embedder.similarity!r}; ask by "
                "one sentence or one picture"
            )
        scores = np.empty((len(queries), k), dtype=np.float32)
        places = np.empty((len(queries), k), dtype=np.int64)
        is_text = np.array([parts[0].is_text for parts in queries.parts])
        if is_text.any() and k:
            found = self._vectors.search_by_order(self._embedder.sentences(queries.texts), k, rows)
            scores[is_text], places[is_text] = found
        if not is_text.all():
            found = self.nearest(self._embedder.pictures(queries.images), k, rows)
            scores[~is_text], places[~is_text] = found
        return scores, places
