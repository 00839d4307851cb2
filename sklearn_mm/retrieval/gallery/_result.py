"""What a search of a gallery has found: a table, and the pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sklearn_mm._tables import shown
from sklearn_mm.display import RetrievalGridDisplay
from sklearn_mm.retrieval.gallery._html import pictures_as_html
from sklearn_mm.retrieval.gallery._items import import_pandas

__all__ = ["SearchResult"]

_OWN = ("query", "id", "score", "rank")
_N_SHOWN = 20  # rows in a repr


class SearchResult:
    """What a gallery answers: a row for each picture found, best first.

    Parameters
    ----------
    queries : list of str, length n_queries
        What each query is called: the sentence, the path, or its number.
    counts : list of int, length n_queries
        How many pictures each has found; rows of one query stand together.
    ids : list of (str or int), length n_found
    scores : ndarray of shape (n_found,), float32
        Larger is closer.
    metadata : mapping of str to ndarray of shape (n_found,)
    paths : list of (str or None), length n_found
        Where the pictures lie, as far as it is known.
    several : bool, default=False
        Whether the queries came as a list: the table then has a column of them.

    See Also
    --------
    Gallery.search : Makes it.

    Notes
    -----
    Columns of the table are ``id``, ``score``, ``rank`` (0 is best) and the metadata, of several queries ``query``
    before them. A column of the metadata of one of these names is called ``metadata_id`` and so on here.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.retrieval import SearchResult
    >>> names, years = ["a.jpg", "b.jpg"], np.array([2019, 2024])
    >>> found = SearchResult(["a dog"], [2], names, np.array([0.5, 0.25]), {"year": years}, names)
    >>> found.ids
    ['a.jpg', 'b.jpg']
    >>> found.rows()[0]
    {'id': 'a.jpg', 'score': 0.5, 'rank': 0, 'year': 2019}
    >>> found
    rank  score  id     year
    0     0.500  a.jpg  2019
    1     0.250  b.jpg  2024
    """

    def __init__(
        self,
        queries: Sequence[str],
        counts: Sequence[int],
        ids: Sequence[Any],
        scores: np.ndarray,
        metadata: Mapping[str, np.ndarray],
        paths: Sequence[str | None],
        several: bool = False,
    ) -> None:
        self.queries = list(queries)
        self.counts = [int(count) for count in counts]
        self.ids = list(ids)
        self.scores = np.asarray(scores)
        self.metadata = dict(metadata)
        self.paths = list(paths)
        self.several = several

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows())

    @property
    def ranks(self) -> np.ndarray:
        """The place of each row among those of its query, 0 the best: (n_found,) int64."""
        return np.concatenate([np.arange(0), *map(np.arange, self.counts)]).astype(np.int64)

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as one dict for each row, of plain Python objects."""
        columns = {name: _plain(column) for name, column in self._columns().items()}
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]

    def to_frame(self) -> Any:
        """Return the table as a data frame of pandas.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        return import_pandas("to_frame()").DataFrame(self._columns())

    def split(self) -> list["SearchResult"]:
        """Return the results of each query apart, one a query."""
        starts = np.cumsum([0, *self.counts])
        return [
            SearchResult(
                [query],
                [count],
                self.ids[start : start + count],
                self.scores[start : start + count],
                {name: column[start : start + count] for name, column in self.metadata.items()},
                self.paths[start : start + count],
            )
            for query, count, start in zip(self.queries, self.counts, starts.tolist(), strict=False)
        ]

    def show(self, *, figure: Any = None) -> RetrievalGridDisplay:
        """Draw the pictures, a row for each query.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, optional
            What to draw into; a new figure of fitting size by default.

        Returns
        -------
        RetrievalGridDisplay
            Drawn.

        Raises
        ------
        ValueError
            Nothing was found, or the files of pictures are not known, which came otherwise.
        ImageReadError
            A picture cannot be read any more.
        ImportError
            matplotlib is not installed.
        """
        if not len(self):
            raise ValueError("nothing was found that could be shown")
        unknown = [id for id, path in zip(self.ids, self.paths, strict=True) if path is None]
        if unknown:
            raise ValueError(
                f"the files of {len(unknown)} pictures are not known, the first is {shown(unknown[0])}: they came as "
                "arrays or features; draw them by display.RetrievalGridDisplay.from_predictions"
            )
        indices = np.full((len(self.counts), max(self.counts)), -1)
        indices[np.arange(max(self.counts)) < np.array(self.counts)[:, None]] = np.arange(len(self))
        scores = np.where(indices >= 0, self.scores[indices], np.nan)
        display = RetrievalGridDisplay(texts=self.queries, images=self.paths, indices=indices, scores=scores)
        return display.plot(figure=figure)

    def _repr_html_(self) -> str:
        return pictures_as_html(self.split())

    def _columns(self) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        if self.several:
            of_row = np.repeat(np.arange(len(self.queries)), self.counts)
            columns["query"] = [self.queries[query] for query in of_row]
        columns |= {"id": self.ids, "score": self.scores, "rank": self.ranks}
        return columns | {f"metadata_{name}" if name in _OWN else name: each for name, each in self.metadata.items()}

    def __repr__(self) -> str:
        if not len(self):
            return f"nothing found for {', '.join(map(shown, self.queries))}"
        rows = self.rows()[:_N_SHOWN]
        names = list(rows[0])
        # the rank first, as one reads it; a query once, where it begins
        names = ["rank", "score", "id", *(name for name in names if name not in _OWN)]
        if self.several:
            names = ["query", *names]
        table = [names] + [[_cell(name, row[name]) for name in names] for row in rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        if len(self) > _N_SHOWN:
            lines.append(f"... {len(self) - _N_SHOWN} more rows")
        return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    if name == "score":
        return f"{value:.3f}"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-19:]}"


def _plain(column: Any) -> list[Any]:
    if not isinstance(column, np.ndarray):
        return list(column)
    # of nanoseconds numpy makes ints, of microseconds times
    return (column.astype(f"{column.dtype.kind}8[us]") if column.dtype.kind in "mM" else column).tolist()
