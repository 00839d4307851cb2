"""One shard from its rows to its files: what every engine runs."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_mm.images import ReadFailure
from sklearn_mm.scaling._attempt import Attempt, own_copy
from sklearn_mm.scaling._manifest import Shard
from sklearn_mm.scaling._sink import ShardFolder
from sklearn_mm.scaling._sources import Block, Rows, blocks_of
from sklearn_mm.scaling._writers import writer_of
from sklearn_mm.training import made_ahead

__all__ = ["BLOCK_ROWS", "EmbedShard", "n_shards", "shard_range"]

BLOCK_ROWS = (
    1024  # handed to the transformer at once: a network waits for the first pictures of each, some percent of it
)


def n_shards(rows: Rows, shard_size: int) -> int:
    """Return how many shards a source has."""
    return -(-rows.n_rows // shard_size)


def shard_range(rows: Rows, shard_size: int, number: int) -> tuple[int, int]:
    """Return the first row of a shard, and that behind its last."""
    return number * shard_size, min((number + 1) * shard_size, rows.n_rows)


def blocks_ahead(rows: Rows, start: int, stop: int) -> Iterator[Block]:
    """Yield blocks, the next being read in a thread while the transformer works on this one."""
    blocks = blocks_of(rows, start, stop, BLOCK_ROWS)
    return made_ahead(blocks, 1) if stop - start > BLOCK_ROWS else blocks


@dataclass
class EmbedShard:
    """Embeds shards by their number, in any process.

    Parameters
    ----------
    transformer : estimator
        Fitted.
    rows : Rows
    folder : ShardFolder
    shard_size : int
    shard_format : str
    on_error : {"skip", "raise"}
    """

    transformer: Any
    rows: Rows
    folder: ShardFolder
    shard_size: int
    shard_format: str
    on_error: str

    def __post_init__(self) -> None:
        self._attempt: Attempt | None = None  # made in the process that runs it

    def __call__(self, number: int) -> Shard:
        """Write a shard, and note it as done."""
        if self._attempt is None:
            self._attempt = Attempt(own_copy(self.transformer, self.on_error), "transform", self.on_error)
        start, stop = shard_range(self.rows, self.shard_size, number)
        failures: list[ReadFailure] = []
        n_rows = 0
        shape: tuple[int | None, str | None] = (None, None)
        with self.folder.room(number) as stem:
            writer = writer_of(self.shard_format, stem)
            try:
                for block in blocks_ahead(self.rows, start, stop):
                    out, bad = self._attempt(block)
                    failures.extend(bad)
                    if out is None:
                        continue
                    kept = sorted(set(range(block.start, block.start + len(block.ids))) - {each.row for each in bad})
                    vectors = _checked(out, len(kept))
                    if n_rows and shape != (vectors.shape[1], vectors.dtype.name):
                        raise ValueError(
                            f"the transformer gave {shape[0]} columns of {shape[1]}, and now {vectors.shape[1]}"
                        )
                    n_rows, shape = n_rows + len(kept), (vectors.shape[1], vectors.dtype.name)
                    with self.folder.writes(number):
                        writer.add(kept, [block.ids[row - block.start] for row in kept], vectors)
                with self.folder.writes(number):
                    writer.close()
            except BaseException:
                with suppress(Exception):  # what has gone wrong before is what counts
                    writer.close()
                raise
            shard = Shard(number, start, stop, n_rows, *shape, failures=tuple(failures))
            paths = [stem.with_name(stem.name + suffix) for suffix in writer.suffixes] if n_rows else []
            with self.folder.writes(number):
                return self.folder.finish(shard, paths)


def _checked(out: Any, n_rows: int) -> np.ndarray:
    """Return the embedding of a block as an array whose rows lie one after the other."""
    if sparse.issparse(out):
        raise TypeError("expected dense vectors of the transformer, got a sparse matrix; reduce it in a pipeline first")
    vectors = np.asarray(out)
    if vectors.ndim != 2 or len(vectors) != n_rows:
        raise ValueError(f"expected an array of {n_rows} rows of the transformer, got one of shape {vectors.shape}")
    if vectors.dtype.kind not in "biuf":
        raise TypeError(f"expected numbers of the transformer, got an array of dtype {vectors.dtype}")
    return np.ascontiguousarray(vectors)
