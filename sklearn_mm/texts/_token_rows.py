"""Texts as numbers: ragged rows of token ids, stored flat."""

from dataclasses import dataclass

import numpy as np

from sklearn_mm.registry import stored_as

__all__ = ["TokenRows"]


@stored_as("texts.TokenRows")
@dataclass(frozen=True)
class TokenRows:
    """Ragged rows of token ids, flat like a compressed sparse row matrix.

    Attributes
    ----------
    ids : ndarray of shape (n_tokens,), int64
        The token ids of all rows, one after the other.
    starts : ndarray of shape (n_rows + 1,), int64
        Row i is ``ids[starts[i]:starts[i + 1]]``; rows may be empty.
    """

    ids: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens in each row, shape (n_rows,), int64."""
        return np.diff(self.starts)

    def __getitem__(self, rows: np.ndarray | slice) -> "TokenRows":
        """Take rows by slice or by an array of row numbers."""
        # numpy knows how to read slices and negative numbers; nothing here looks at rows that are not asked for, which
        # there are more of with every batch
        first = self.starts[:-1][rows]
        lengths = self.starts[1:][rows] - first  # (n_taken,)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        # one gather for all rows: a loop over them would run in Python, batch after batch
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        return TokenRows(self.ids[np.repeat(first, lengths) + within], starts)
