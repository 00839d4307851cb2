"""A method of an estimator over blocks of pictures, some of which cannot be read."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from sklearn_mm._device import n_threads
from sklearn_mm._unreadable import MarkedFeatures, summarise, take_readable
from sklearn_mm.exceptions import ImageReadError, ImageReadWarning
from sklearn_mm.images import PictureReader, Pictures, ReadFailure, read_ahead
from sklearn_mm.scaling._sources import Block

__all__ = ["Attempt", "own_copy", "parameters_of", "with_threads_of_its_process"]

_WAY_OUT = "mend or drop these pictures, or leave them out by on_error='skip'"
_AHEAD, _SIDE = 64, 224  # pictures decoded ahead; large JPEG files are decoded at a fraction of their size


class Attempt:
    """Calls a method with the pictures of a block that can be read.

    An estimator that has `on_error` leaves out the others itself, and says which. For any other, pictures are decoded
    first to find them, from the first block on that it has refused: in most sources there is none.

    Parameters
    ----------
    estimator : estimator
        With `on_error` set, if it has it: see `own_copy`.
    method : str
        Its method: from a list of pictures to anything, an array of a row for each being told by its marks.
    on_error : {"skip", "raise"}
    """

    def __init__(self, estimator: Any, method: str, on_error: str) -> None:
        self.estimator = estimator
        self._call: Callable[[list[Any]], Any] = getattr(estimator, method)
        self._skips = on_error == "skip"
        self._finds_bad = self._skips and "on_error" in parameters_of(estimator, deep=False)
        self._looks_first = False

    def __call__(self, block: Block) -> tuple[Any, list[ReadFailure]]:
        """Return what the method made of the block, None where nothing could be read, and what could not be."""
        bad = self._unreadable(block) if self._looks_first else []
        kept = _without(block.items, bad)
        if not kept:
            return None, self._named(block, bad)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImageReadWarning)  # the manifest tells of all of them
                out = self._call(kept)
        except ImageReadError as error:
            return self._again(block, error)
        return take_readable(out)[0], self._named(block, bad) + self._left_out(out, block, bad)

    def _again(self, block: Block, error: ImageReadError) -> tuple[Any, list[ReadFailure]]:
        """Look at the pictures one by one, after the estimator has refused them."""
        bad = self._unreadable(block)
        if self._looks_first or not bad:
            raise error
        if not self._skips:
            raise ImageReadError(f"{summarise(self._named(block, bad))}; {_WAY_OUT}") from error
        kept = _without(block.items, bad)
        if self._finds_bad and not kept:
            return None, self._named(block, bad)
        self._looks_first = True
        return self(block)

    def _left_out(self, out: Any, block: Block, bad: list[ReadFailure]) -> list[ReadFailure]:
        """Return the pictures that the estimator has left out itself: an array's marks tell, or else its last call."""
        own = getattr(self.estimator, "errors_", ()) if self._finds_bad else ()
        failures = out.failures if isinstance(out, MarkedFeatures) else own
        rows = _without(list(range(len(block.items))), bad)
        named = self._named(block, [failure._replace(row=rows[failure.row]) for failure in failures])
        if named and not self._skips:
            raise ImageReadError(f"{summarise(named)}; {_WAY_OUT}")
        return named

    def _unreadable(self, block: Block) -> list[ReadFailure]:
        reader = PictureReader(_SIDE, _SIDE, extra_formats=_extra_formats(self.estimator))
        pictures = Pictures(block.items)
        answers = read_ahead(reader.decode, pictures, range(len(pictures)), n_threads(None), _AHEAD)
        return [answer for _, answer in answers if isinstance(answer, ReadFailure)]

    @staticmethod
    def _named(block: Block, failures: Sequence[Any]) -> list[ReadFailure]:
        """Number failures as the source does, and call them as it does."""
        return [ReadFailure(block.start + each.row, block.ids[each.row], each.reason) for each in failures]


def own_copy(estimator: Any, on_error: str) -> Any:
    """Return a copy of a fitted estimator that deals with bad pictures itself, if it can; the original if it cannot.

    It shares what was learnt with the original. It shows no progress, and gives arrays.
    """
    names = parameters_of(estimator, deep=False)
    if "on_error" not in names:
        return estimator
    own = copy.copy(estimator)
    own.set_params(on_error=on_error, **({"verbose": 0} if "verbose" in names else {}))
    if hasattr(own, "set_output"):
        own.set_output(transform="default")
    return own


def with_threads_of_its_process(estimator: Any) -> Any:
    """Return an estimator that computes with as many threads as torch is set to, where it says another number."""
    if parameters_of(estimator, deep=False).get("n_jobs") is None:
        return estimator
    return copy.copy(estimator).set_params(n_jobs=None)


def _without(items: list[Any], bad: list[ReadFailure]) -> list[Any]:
    if not bad:
        return items
    rows = {failure.row for failure in bad}
    return [item for row, item in enumerate(items) if row not in rows]


def parameters_of(estimator: Any, *, deep: bool) -> dict[str, Any]:
    """Return the parameters of an estimator, none of what has no such method."""
    return estimator.get_params(deep=deep) if hasattr(estimator, "get_params") else {}


def _extra_formats(estimator: Any) -> tuple[str, ...]:
    """Return the formats that an estimator opens beside the usual ones, wherever in it that is said."""
    found = [value for name, value in parameters_of(estimator, deep=True).items() if name.endswith("extra_formats")]
    return tuple(sorted({each for formats in found for each in formats}))
