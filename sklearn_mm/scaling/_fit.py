"""Learn statistics from more pictures than fit into memory, shard by shard, and merge them."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from sklearn.base import clone

from sklearn_mm.images import ReadFailure
from sklearn_mm.scaling._attempt import Attempt, own_copy
from sklearn_mm.scaling._manifest import Manifest, Shard
from sklearn_mm.scaling._open import Source, open_source
from sklearn_mm.scaling._run import check_run, header_of, run_shards, running_on
from sklearn_mm.scaling._sink import ShardFolder, Sink
from sklearn_mm.scaling._sources import Rows
from sklearn_mm.scaling._work import blocks_ahead, shard_range

__all__ = ["HasStatistics", "fit_shards"]


class HasStatistics(Protocol):
    """An estimator of pictures that learns sums over them, which can be put together."""

    def partial_fit(self, X: Any) -> Self:
        """Take in more pictures."""
        ...

    def get_statistics(self) -> dict[str, Any]:
        """Return what was learnt: arrays, and what JSON can hold."""
        ...

    def set_statistics(self, parts: Iterable[dict[str, Any]]) -> Self:
        """Become fitted on the pictures of several fits together; on none, where there are no parts."""
        ...


Fitted = TypeVar("Fitted", bound=HasStatistics)


def fit_shards(
    transformer: Fitted,
    source: Source,
    sink: str | os.PathLike[str],
    *,
    shard_size: int = 10_000,
    resume: bool = True,
    engine: str = "local",
    on_error: str = "skip",
    verbose: int = 0,
) -> Fitted:
    """Fit an embedding shard by shard, and go on where a run was stopped.

    Parameters
    ----------
    transformer : estimator
        A `FullNetworkEmbedding`, or another with `partial_fit`, `get_statistics` and `set_statistics`. What it has
        learnt before does not count.
    source, shard_size, resume, engine, on_error, verbose
        As in `embed_shards`.
    sink : path
        A folder for the statistics of each shard; made if it is not there. It may be removed afterwards.

    Returns
    -------
    estimator
        The transformer, fitted on all pictures.

    Raises
    ------
    TypeError
        The transformer has no statistics that can be put together.
    ValueError, OSError, ImageReadError, ImportError
        As in `embed_shards`.

    See Also
    --------
    embed_shards : Embeds as many pictures.

    Notes
    -----
    Means and squared deviations are merged in float64, in the order of the shards: whichever engine has run, and
    however often it was stopped, the result is the same bit for bit. It is that of one `fit` up to the rounding of
    float64. ``layers="aligned"`` chooses by captions and cannot be fitted so: fit it on a sample.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from sklearn_mm.features import FullNetworkEmbedding
    >>> from sklearn_mm.scaling import fit_shards
    >>> temporary = TemporaryDirectory()
    >>> photos = Path(temporary.name) / "photos"
    >>> photos.mkdir()
    >>> for shade in range(6):
    ...     Image.new("RGB", (32, 32), (40 * shade, 0, 0)).save(photos / f"{shade}.png")
    >>> embedding = FullNetworkEmbedding("resnet18", weights=None, image_size=32, layers="last")
    >>> fit_shards(embedding, photos, Path(temporary.name) / "statistics", shard_size=4).n_samples_seen_
    6
    >>> temporary.cleanup()
    """
    check_run(shard_size, engine, on_error)
    _check_has_statistics(transformer)
    rows = open_source(source)
    unfitted = clone(transformer)
    header = header_of("fit_shards", unfitted, rows, shard_size, "statistics")
    with Sink(sink, header, resume) as opened:
        work = FitShard(running_on(engine, unfitted), rows, ShardFolder(opened.folder), shard_size, on_error)
        manifest = run_shards(opened, rows, shard_size, work, transformer=transformer, engine=engine, verbose=verbose)
        transformer.set_statistics(_statistics_of(manifest))
    return transformer


def _check_has_statistics(transformer: Any) -> None:
    for method in ("partial_fit", "get_statistics", "set_statistics"):
        if not hasattr(transformer, method):
            raise TypeError(
                f"expected an estimator whose statistics can be put together, got a {type(transformer).__name__}, "
                f"which has no {method}; fit it on a sample"
            )


@dataclass
class FitShard:
    """Fits shards by their number, in any process.

    Parameters
    ----------
    transformer : estimator
        Not fitted.
    rows : Rows
    folder : ShardFolder
    shard_size : int
    on_error : {"skip", "raise"}
    """

    transformer: Any
    rows: Rows
    folder: ShardFolder
    shard_size: int
    on_error: str

    def __post_init__(self) -> None:
        self._attempt: Attempt | None = None  # made in the process that runs it

    def __call__(self, number: int) -> Shard:
        """Write the statistics of a shard, and note it as done."""
        if self._attempt is None:
            self._attempt = Attempt(own_copy(clone(self.transformer), self.on_error), "partial_fit", self.on_error)
        else:
            self._attempt.estimator.set_statistics([])  # a new estimator would build its network anew
        start, stop = shard_range(self.rows, self.shard_size, number)
        failures: list[ReadFailure] = []
        n_rows = 0
        for block in blocks_ahead(self.rows, start, stop):
            fitted, bad = self._attempt(block)
            failures.extend(bad)
            n_rows += 0 if fitted is None else len(block.ids) - len(bad)
        with self.folder.room(number) as stem, self.folder.writes(number):
            shard = Shard(number, start, stop, n_rows, None, None, failures=tuple(failures))
            if not n_rows:
                return self.folder.finish(shard, [])
            path = stem.with_name(f"{stem.name}.npz")
            np.savez(path, **_as_arrays(self._attempt.estimator.get_statistics()))
            return self.folder.finish(shard, [path])


def _as_arrays(statistics: dict[str, Any]) -> dict[str, Any]:
    """Keep arrays as they are, and all else as one text of JSON."""
    arrays = {name: value for name, value in statistics.items() if isinstance(value, np.ndarray)}
    others = {name: value for name, value in statistics.items() if name not in arrays}
    return {**arrays, "json": np.array(json.dumps(others))}


def _statistics_of(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for shard in manifest.shards:
        for file in shard.files:
            with np.load(Path(manifest.folder) / file.name, allow_pickle=False) as stored:
                others = json.loads(str(stored["json"]))
                yield {**{name: stored[name] for name in stored.files if name != "json"}, **others}
