"""How many pictures a sentence deserves: a threshold of its own for each, with a stated share of right ones missed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_mm._unicode import normal_form
from sklearn_mm.registry import stored_as

__all__ = ["USUAL_RISK", "Cutoff", "calibrate", "check_risk"]

USUAL_RISK = 0.1  # where nobody asks for another

_MOST_BANK = 1000  # pictures by which a sentence is told to be easy or hard
_TOP_SHARE = 0.05  # of these the nearest count
_GATE_SHARE = 0.1  # of the risk goes to sentences of too many unknown words
_BLOCK = 1024  # sentences whose scores over the bank are held at once
_SAME = 1e-5  # of vectors of unit length: differences below come from the order of sums
_AROUND = ".,;:!?\"'()[]{}"  # of a word


@stored_as("retrieval.Cutoff")
@dataclass(frozen=True)
class Cutoff:
    """What held-out pictures and sentences have told of scores.

    A picture is returned if its score exceeds, by a margin that is the same for all sentences, the mean score of those
    pictures of a bank that are nearest to the sentence: what scores high over everything has to score higher still.

    Attributes
    ----------
    bank : ndarray of shape (n_bank, n_columns), float32
        Pictures held out, as items.
    margins : ndarray of shape (n_captions,), float32
        Ascending: by how much each caption's own picture exceeds that mean; minus infinity of captions that would get
        nothing at all.
    n_images : int
        How many pictures the captions are of.
    most_unknown : float
        Sentences of which a larger share of the words is unknown get nothing.
    anchor : str
        A sentence: a word that changes nothing when it is added is unknown.
    risk : float
        The share of right pictures that may be missed, if none is asked for.
    """

    bank: np.ndarray
    margins: np.ndarray
    n_images: int
    most_unknown: float
    anchor: str
    risk: float

    def margin(self, risk: float) -> float:
        """Return the margin by which no more than a share of right pictures is missed, in expectation [1]_.

        References
        ----------
        .. [1] Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal Risk Control", ICLR 2024,
           https://arxiv.org/abs/2208.02814 (equation 4, with a loss of at most 1)
        """
        check_risk(risk, self.n_images)
        allowed = (risk * (self.n_images + 1) - 1) / self.n_images
        # margins below the one returned are missed
        return float(self.margins[int(np.floor(allowed * len(self.margins)))])

    def least_scores(self, queries: np.ndarray, texts: list[str], embed: Any, risk: float) -> np.ndarray:
        """Return the lowest score (n_queries,) float32 that is returned for each sentence."""
        least = reference(queries, self.bank) + self.margin(risk)
        least[unknown_share(texts, self.anchor, embed) > self.most_unknown] = np.inf
        return least.astype(np.float32)

    def to_facts(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {name: getattr(self, name) for name in ("n_images", "most_unknown", "anchor", "risk")}


def check_risk(risk: Any, n_images: int) -> None:
    """Refuse a risk that is none, or smaller than so many pictures can tell.

    Raises
    ------
    ValueError
        It is.
    """
    if isinstance(risk, bool) or not isinstance(risk, int | float | np.floating) or not 0 < risk < 1:
        raise ValueError(f"a risk is a share of right pictures that may be missed, between 0 and 1, got {risk!r}")
    if risk * (n_images + 1) < 1:
        raise ValueError(
            f"a risk of {risk} needs at least {int(np.ceil(1 / risk)) - 1} held-out pictures, got {n_images}; hold out "
            "more, or allow for more"
        )


def calibrate(
    bank: np.ndarray,
    queries: np.ndarray,
    texts: list[str],
    owner: np.ndarray,
    embed: Callable[[list[str]], np.ndarray],
    risk: float,
) -> Cutoff:
    """Make a cutoff of held-out pictures and their captions.

    Parameters
    ----------
    bank : ndarray of shape (n_images, n_columns), float32
        The pictures, as items.
    queries : ndarray of shape (n_captions, n_columns), float32
        The captions, as queries.
    texts : list of str, length n_captions
    owner : ndarray of shape (n_captions,), int64
        The picture of each caption.
    embed : callable
        From texts to their vectors.
    risk : float
    """
    n_images = len(bank)
    check_risk(risk, n_images)
    anchor = min(texts, key=len)  # a short one, as encoders cut long ones
    unknown = unknown_share(texts, anchor, embed)
    most_unknown = float(np.quantile(unknown, 1 - _GATE_SHARE * risk, method="higher"))
    kept = np.unique(np.linspace(0, n_images - 1, min(n_images, _MOST_BANK)).astype(np.int64))
    place = np.full(n_images, -1)
    place[kept] = np.arange(len(kept))
    own_score = np.einsum("ij,ij->i", queries.astype(np.float64), bank[owner].astype(np.float64))
    margins = own_score - reference(queries, bank[kept], place[owner])
    margins[unknown > most_unknown] = -np.inf
    return Cutoff(bank[kept], np.sort(margins).astype(np.float32), n_images, most_unknown, anchor, float(risk))


def reference(queries: np.ndarray, bank: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """Return the mean score of the nearest of a bank, (n_queries,) float64, without each query's own (-1 is none)."""
    n_near = max(round(_TOP_SHARE * len(bank)), 1)
    out = np.empty(len(queries))
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores = queries[block].astype(np.float64) @ bank.T.astype(np.float64)
        if own is not None:
            row = np.flatnonzero(own[block] >= 0)
            scores[row, own[block][row]] = -np.inf
        nearest = np.partition(scores, len(bank) - n_near, axis=1)[:, len(bank) - n_near :]
        out[block] = np.sort(nearest, axis=1).mean(axis=1)
    return out


def unknown_share(texts: list[str], anchor: str, embed: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """Return the share of the words of each text, (n_texts,), that the model does not know.

    Encoders leave out words that they have never seen: with one of these behind it a sentence has the vector that it
    has without.
    """
    words = [_words(text) for text in texts]
    different = sorted({word for own in words for word in own})
    vectors = embed([anchor, *(f"{anchor} {word}" for word in different)])
    changes = np.abs(vectors[1:] - vectors[0]).max(axis=1, initial=0) > _SAME
    is_unknown = dict(zip(different, (~changes).tolist(), strict=True))
    return np.array([np.mean([is_unknown[word] for word in own]) if own else 1.0 for own in words])


def _words(text: str) -> list[str]:
    stripped = (word.strip(_AROUND) for word in normal_form(text).split())
    return [word for word in stripped if word]
