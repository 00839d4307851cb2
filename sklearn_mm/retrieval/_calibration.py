"""Images that `fit` holds out, of which a gallery learns how many pictures a sentence deserves."""

from numbers import Real
from typing import Any

import numpy as np

from sklearn_mm._checks import Captions
from sklearn_mm._params import Interval
from sklearn_mm._unicode import normal_form
from sklearn_mm.retrieval._cutoff import USUAL_RISK, Cutoff, calibrate, check_risk
from sklearn_mm.retrieval._hubness import as_items, as_queries
from sklearn_mm.sampling import held_out_rows

__all__ = ["CALIBRATION_CONSTRAINTS", "check_calibration", "hold_out", "learn_cutoff"]

CALIBRATION_CONSTRAINTS: dict[str, Any] = {"calibration_fraction": [Interval(Real, 0, 1, closed="neither"), None]}


def check_calibration(ranker: Any) -> None:
    """Refuse to hold images out of a ranker for which nothing can be learnt of them.

    Raises
    ------
    ValueError
        It compares otherwise than by cosines.
    """
    if ranker.calibration_fraction is not None and ranker.similarity != "cosine":
        raise ValueError(
            f"calibration_fraction={ranker.calibration_fraction} holds images out for a cutoff on cosines, and "
            f"similarity={ranker.similarity!r} is none; set calibration_fraction=None"
        )


def hold_out(
    fraction: float | None, weight: Any, groups: np.ndarray | None, n_images: int, rng: np.random.Generator
) -> tuple[Any, np.ndarray | None]:
    """Give a share of the images, whole groups at a time, a weight of 0: they come into the galleries alone.

    Parameters
    ----------
    fraction : float or None
        None holds none out, and draws nothing.
    weight : ndarray of shape (n_images,) or None
    groups : ndarray of shape (n_images,) or None
    n_images : int
    rng : numpy.random.Generator

    Returns
    -------
    weight : ndarray of shape (n_images,) or None
    is_held_out : ndarray of shape (n_images,), bool, or None

    Raises
    ------
    ValueError
        They are too few to learn of.
    """
    if fraction is None:
        return weight, None
    counts = np.ones(n_images, dtype=bool) if weight is None else np.asarray(weight) > 0
    own = np.arange(n_images) if groups is None else np.asarray(groups)
    drawn = held_out_rows(own[counts], fraction, rng)
    is_held_out = np.zeros(n_images, dtype=bool)
    if drawn is not None:
        is_held_out[counts] = drawn
    try:
        check_risk(USUAL_RISK, int(is_held_out.sum()))
    except ValueError as error:
        raise ValueError(f"calibration_fraction={fraction} of {int(counts.sum())} images: {error}") from None
    return np.where(is_held_out, 0.0, 1.0 if weight is None else weight), is_held_out


def learn_cutoff(ranker: Any, captions: Captions, is_held_out: np.ndarray) -> Cutoff:
    """Learn of images held out, as they stand in the galleries of a ranker after `fit`.

    Parameters
    ----------
    ranker : estimator
    captions : Captions
        Of the images of its gallery, in their order.
    is_held_out : ndarray of shape (n_images,), bool
        Which of these.
    """
    known = captions.take(np.flatnonzero(is_held_out))
    bank = ranker._image_gallery.embedding[is_held_out]
    row_of = {normal_form(str(text)): row for row, text in enumerate(ranker.gallery_texts_.tolist())}
    queries = ranker._text_gallery.embedding[[row_of[normal_form(text)] for text in known.texts]]
    bank, queries = as_items(bank, ranker.hubness_), as_queries(queries, ranker.hubness_)
    return calibrate(bank, queries, known.texts, known.image_index, ranker.transform_text, USUAL_RISK)
