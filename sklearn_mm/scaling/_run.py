"""The frame of a run: checks, the sink, the engine, and what is told in the end."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from tqdm.auto import tqdm

from sklearn_mm._content import UndigestibleError, content_digest
from sklearn_mm._params import Integral
from sklearn_mm._unreadable import summarise
from sklearn_mm._version import __version__
from sklearn_mm.exceptions import ImageReadError, ImageReadWarning
from sklearn_mm.scaling._attempt import own_copy, parameters_of, with_threads_of_its_process
from sklearn_mm.scaling._engines import ENGINES, run
from sklearn_mm.scaling._manifest import FORMAT, FORMAT_VERSION, Manifest, Shard
from sklearn_mm.scaling._sink import Sink
from sklearn_mm.scaling._sources import Rows
from sklearn_mm.scaling._work import n_shards

__all__ = ["check_choice", "check_run", "header_of", "run_shards", "running_on"]

_CALLER = 3  # of the public function


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Check a parameter that is one of some words."""
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")


def check_run(shard_size: Any, engine: Any, on_error: Any) -> None:
    """Check what every run takes: the number of rows of a shard, what does them, and what becomes of bad pictures."""
    if isinstance(shard_size, bool) or not isinstance(shard_size, Integral) or shard_size < 1:
        raise ValueError(f"shard_size must be an int of at least 1, got {shard_size!r}")
    check_choice("engine", engine, ENGINES)
    check_choice("on_error", on_error, ("skip", "raise"))


def running_on(engine: str, estimator: Any) -> Any:
    """Return the estimator as it is given to the processes of an engine."""
    return with_threads_of_its_process(estimator) if engine == "ray" else estimator


def header_of(purpose: str, estimator: Any, rows: Rows, shard_size: int, shard_format: str) -> dict[str, Any]:
    """Return whose shards those of a run are.

    Raises
    ------
    TypeError
        The estimator holds what cannot be told from others, such as a lock.
    """
    try:
        fingerprint = content_digest(own_copy(estimator, "skip"))
    except UndigestibleError as error:
        raise TypeError(
            f"cannot tell this {type(estimator).__name__} from others, as a run that goes on has to: {error}"
        ) from error
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "purpose": purpose,
        "versions": {"sklearn_mm": __version__, "torch": str(torch.__version__)},
        "transformer": {"class": type(estimator).__name__, "fingerprint": fingerprint},
        "source": {"kind": rows.kind, "n_rows": rows.n_rows, "identity": rows.identity()},
        "shard_size": int(shard_size),
        "shard_format": shard_format,
    }


def run_shards(
    sink: Sink,
    rows: Rows,
    shard_size: int,
    work: Callable[[int], Shard],
    *,
    transformer: Any,
    engine: str,
    verbose: int,
) -> Manifest:
    """Let an engine do the shards that are not done, and return the manifest of all.

    Raises
    ------
    ImageReadError
        Not one picture could be read.

    Warns
    -----
    ImageReadWarning
        Some could not.
    """
    missing = [number for number in range(n_shards(rows, shard_size)) if number not in sink.done]
    n_done = sum(shard.stop - shard.start for shard in sink.done.values())
    with tqdm(total=rows.n_rows, initial=n_done, desc="rows", unit="row", disable=not verbose) as bar:
        for shard in run(engine, work, missing, parameters_of(transformer, deep=False)):
            _check_alike(shard, sink)
            sink.done[shard.number] = shard
            bar.update(shard.stop - shard.start)
    manifest = sink.complete()
    failures = manifest.failures
    if manifest.n_rows == 0:
        raise ImageReadError(f"not one of {rows.n_rows} pictures could be read: {summarise(failures)}")
    if failures and missing:
        warnings.warn(
            f"{len(failures)} of {rows.n_rows} pictures could not be read and were left out; the manifest lists them: "
            f"{summarise(failures)}",
            ImageReadWarning,
            stacklevel=_CALLER,
        )
    return manifest


def _check_alike(shard: Shard, sink: Sink) -> None:
    """Check that a shard has the columns of the others."""
    if shard.n_features is None:
        return
    for other in sink.done.values():
        if other.n_features is not None:
            if (other.n_features, other.dtype) != (shard.n_features, shard.dtype):
                raise ValueError(
                    f"shard {shard.number} has {shard.n_features} columns of {shard.dtype}, but shard {other.number} "
                    f"{other.n_features} of {other.dtype}"
                )
            return
