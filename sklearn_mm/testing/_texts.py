"""Checks of transformers of texts."""

import warnings
from typing import Any

import numpy as np

from sklearn_mm.exceptions import TruncationWarning
from sklearn_mm.testing._case import Case, Check, expect, expect_error, expect_near, noted
from sklearn_mm.testing._media import as_objects, text_forms

__all__ = ["TEXT_CHECKS"]

_BAD_ROW = 7


def check_every_form_of_texts_is_answered_alike(case: Case) -> None:
    """Texts may come in lists, tuples, str arrays, object arrays and Series, in `fit` as in `transform`."""
    expected = case.fitted.transform(case.X)
    for form, held in text_forms(case.X).items():
        with noted(f"texts in {form}"):
            answer, fitted = case.fitted.transform(held), case.fresh().fit(held, case.y)
        expect_near(answer, expected, f"{case.name}.transform of {form}")
        expect_near(fitted.transform(case.X), expected, f"{case.name} fitted on {form}")


def check_texts_of_unknown_words_are_embedded(case: Case) -> None:
    """A text without a known word, and the empty text, have finite embeddings; a warning is allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        embedding = case.fitted.transform(["zyzzyva quokka", "", "!?", case.X[0]])
    expect(len(embedding) == 4, f"{case.name}.transform drops texts of unknown words")
    expect(bool(np.isfinite(embedding).all()), f"{case.name}.transform of unknown words is not finite")


def check_long_texts_are_embedded(case: Case) -> None:
    """A text a hundred times as long as any in `fit` has a finite embedding; a warning that it is cut is allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        embedding = case.fitted.transform([" ".join(case.X) * 5, case.X[0]])
    expect(bool(np.isfinite(embedding).all()), f"{case.name}.transform of a long text is not finite")


def check_bad_texts_are_named_by_their_row(case: Case) -> None:
    """What is no str is refused with its row: None, numbers, bytes, lists."""
    bad: dict[str, Any] = {"None": None, "a number": 3, "NaN": float("nan"), "bytes": b"red", "a list": ["red"]}
    for what, text in bad.items():
        rows = list(case.X)
        rows[_BAD_ROW] = text
        for form, X in (("list", rows), ("object array", as_objects(rows))):
            place = f"{case.name} given {what} in a {form}"
            expect_error(f"fit of {place}", case.fresh().fit, X, case.y, row=_BAD_ROW)
            expect_error(f"transform of {place}", case.fitted.transform, X, row=_BAD_ROW)


def check_one_text_is_no_sequence(case: Case) -> None:
    """A single str, not wrapped in a list, is refused."""
    expect_error(f"{case.name}.fit of one str", case.fresh().fit, "a red square", case.y)
    expect_error(f"{case.name}.transform of one str", case.fitted.transform, "a red square")


def check_lengths_of_texts_and_instances_must_agree(case: Case) -> None:
    """`fit` refuses a y of another length than the texts."""
    expect_error(f"{case.name}.fit with one y too few", case.fresh().fit, case.X, case.y[:-1])


TEXT_CHECKS: tuple[Check, ...] = (
    check_every_form_of_texts_is_answered_alike,
    check_texts_of_unknown_words_are_embedded,
    check_long_texts_are_embedded,
    check_bad_texts_are_named_by_their_row,
    check_one_text_is_no_sequence,
    check_lengths_of_texts_and_instances_must_agree,
)
