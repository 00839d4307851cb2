"""What a check is given: an estimator and data, and what it asserts with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

__all__ = [
    "ANSWERS",
    "Case",
    "Check",
    "expect",
    "expect_error",
    "expect_near",
    "expect_same",
    "expect_unfitted_error",
    "named",
    "noted",
    "take",
]

ANSWERS = ("transform", "predict", "decision_function", "predict_proba")
_NEAR = 1e-4  # relative: float32 sums in another order, as batches of other sizes make them
_FLIPPED = 1e-3  # share of integer answers that such sums may push over a threshold


@dataclass(frozen=True)
class Case:
    """An estimator and the data to check it on.

    Attributes
    ----------
    estimator : estimator
        Never fitted itself; see `fresh` and `fitted`.
    X : list or ndarray, length n_samples
        Pictures, texts or features.
    y : list or ndarray, length n_samples
        Captions or instances.
    """

    estimator: Any
    X: Any
    y: Any

    @property
    def name(self) -> str:
        """What messages call the estimator."""
        return type(self.estimator).__name__

    def fresh(self) -> Any:
        """Return an unfitted clone, every `random_state` in it set to 0."""
        estimator = clone(self.estimator)
        # Nested ones too: a check that compares two fits must not depend on an encoder's own seed.
        seeds = {name: 0 for name in estimator.get_params() if name.rpartition("__")[2] == "random_state"}
        return estimator.set_params(**seeds)

    @cached_property
    def fitted(self) -> Any:
        """A clone fitted on all of the data; shared by checks, which must not change it."""
        return self.fresh().fit(self.X, self.y)

    def answers(self, estimator: Any, X: Any = None) -> dict[str, np.ndarray]:
        """Return what a fitted estimator answers, under the names of its methods."""
        X = self.X if X is None else X
        return {method: np.asarray(getattr(estimator, method)(X)) for method in ANSWERS if hasattr(estimator, method)}


Check = Callable[[Case], None]


def named(checks: tuple[Check, ...], case: Case) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each check under its name, bound to a case."""
    for check in checks:
        yield check.__name__, partial(check, case)


def take(rows: Any, index: Any) -> Any:
    """Return some rows of a list or an array."""
    # A list stays a list: np.array would make a matrix of captions, and decode pictures.
    return rows[index] if isinstance(rows, np.ndarray) else [rows[i] for i in index]


def expect(condition: bool, message: str) -> None:
    """Raise an AssertionError with the message, unless the condition holds."""
    if not condition:
        raise AssertionError(message)


@contextmanager
def noted(what: str) -> Iterator[None]:
    """Add to any error of the block what was tried there."""
    try:
        yield
    except Exception as error:
        error.add_note(what)
        raise


def expect_same(actual: Any, expected: Any, what: str) -> None:
    """Expect two answers to be equal to the bit, with shape and dtype."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    expect(actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype} instead of {expected.dtype}")
    np.testing.assert_array_equal(actual, expected, err_msg=what)


def expect_near(actual: Any, expected: Any, what: str) -> None:
    """Expect two answers to be equal, but for what float32 sums in another order change."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    expect(actual.shape == expected.shape, f"{what}: shape {actual.shape} instead of {expected.shape}")
    if expected.dtype.kind == "f":
        # Relative to the largest value: entries near 0 are sums in which large terms cancel.
        scale = float(np.abs(expected).max(initial=0.0))
        np.testing.assert_allclose(actual, expected, rtol=_NEAR, atol=_NEAR * scale, err_msg=what)
    else:
        differing = float(np.mean(actual != expected)) if expected.size else 0.0
        expect(differing <= _FLIPPED, f"{what}: {differing:.2%} of the answers differ")


def expect_error(
    what: str,
    call: Callable[..., Any],
    *arguments: Any,
    kinds: tuple[type[Exception], ...] = (TypeError, ValueError),
    row: int | None = None,
) -> None:
    """Expect a call to raise an error of some kinds, and its message to name a row.

    Parameters
    ----------
    what : str
        What is called, for the message of the AssertionError.
    call : callable
    *arguments
        What it is called with.
    kinds : tuple of exception classes, default=(TypeError, ValueError)
    row : int, optional
        The row that the error's message has to name.
    """
    wanted = " or ".join(kind.__name__ for kind in kinds)
    try:
        call(*arguments)
    except kinds as error:
        # By whole words, so that row 7 is not found in "17 pictures".
        words = "".join(letter if letter.isalnum() else " " for letter in str(error)).split()
        if row is not None and str(row) not in words:
            raise AssertionError(f"{what}: the message does not name row {row}: {error}") from error
    # An error of another kind is a failed check, and not the error of the suite.
    except Exception as error:
        raise AssertionError(f"{what}: expected {wanted}, got {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{what}: expected {wanted}, got an answer")


def expect_unfitted_error(what: str, call: Callable[..., Any], *arguments: Any) -> None:
    """Expect a call to raise NotFittedError."""
    expect_error(what, call, *arguments, kinds=(NotFittedError,))
