"""Who does the shards: this process, one after the other, or the workers of Ray."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sklearn_mm.scaling._ray import run_on_ray

__all__ = ["ENGINES", "run"]

Done = TypeVar("Done")


def _run_here(work: Callable[[int], Done], numbers: Sequence[int], parameters: Mapping[str, Any]) -> Iterator[Done]:
    return map(work, numbers)


_ENGINES: dict[str, Callable[..., Iterator[Any]]] = {"local": _run_here, "ray": run_on_ray}
ENGINES = tuple(_ENGINES)


def run(
    engine: str, work: Callable[[int], Done], numbers: Sequence[int], parameters: Mapping[str, Any]
) -> Iterator[Done]:
    """Yield what the work makes of each number, in any order; the parameters are the estimator's."""
    return _ENGINES[engine](work, numbers, parameters)
