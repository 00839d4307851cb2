"""How often what is right is among the first k."""

from typing import Any

import numpy as np

from sklearn_mm._checks import check_captions
from sklearn_mm.display._matplotlib import BLUE, ORANGE, import_pyplot
from sklearn_mm.metrics import (
    DIRECTIONS,
    RetrievalRanks,
    check_cutoff,
    check_offsets,
    check_report_options,
    check_retrieval_input,
    check_wording,
    embed_captions,
    hit_at_k,
    hub_offsets,
    rank_directions,
    recall_at_k,
    unwrap_ranker,
)

__all__ = ["RecallCurveDisplay"]

_NAMES = {"i2t": "image to text", "t2i": "text to image"}
_COLOURS = {"i2t": BLUE, "t2i": ORANGE}


class RecallCurveDisplay:
    """Hit or recall at every k up to a largest, in both directions, beside chance.

    Make it by `from_estimator` or `from_predictions`.

    Parameters
    ----------
    curves : dict of str to ndarray of shape (max_k,), float64
        For "i2t" and "t2i" the fraction at k = 1, 2, ..., max_k.
    chance : dict of str to ndarray of shape (max_k,), float64
        What a model that knows nothing is expected to reach.
    definition : {"hit", "recall"}, default="hit"
        What the fractions are; see `retrieval_report`.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure drawn to last.
    axes_ : ndarray of shape (1,) of matplotlib Axes
        Its axes.
    lines_ : dict of str to matplotlib Line2D
        The curves, by direction.

    See Also
    --------
    sklearn_mm.metrics.retrieval_report : The numbers at a few k.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from sklearn_mm.display import RecallCurveDisplay
    >>> rng = np.random.default_rng(0)
    >>> images = rng.normal(size=(50, 8))
    >>> texts = images + rng.normal(size=(50, 8))
    >>> display = RecallCurveDisplay.from_predictions(images, texts, np.arange(50), max_k=10)
    >>> display.curves["t2i"].shape
    (10,)
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, curves: dict[str, np.ndarray], chance: dict[str, np.ndarray], definition: str = "hit"):
        self.curves = curves
        self.chance = chance
        self.definition = definition

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, max_k: int = 50, definition: str = "hit", ax: Any = None
    ) -> "RecallCurveDisplay":
        """Draw the curves of a fitted ranker.

        Parameters
        ----------
        estimator : estimator with transform and transform_text
            Fitted; or a pipeline or search around one.
        X : sequence of length n_images
            Images or their features, as the estimator takes them.
        y : sequence of (str or sequence of str), length n_images
            The captions of each image. Those of one wording are equally right, as in `RetrievalScorer`.
        max_k : int, default=50
            The largest k; less where both galleries are smaller.
        definition : {"hit", "recall"}, default="hit"
            See `retrieval_report`.
        ax : matplotlib Axes, optional
            What to draw into; a new figure by default.

        Returns
        -------
        RecallCurveDisplay
            Drawn.

        Raises
        ------
        TypeError
            The estimator has no ``transform_text``.
        ValueError
            Images and captions do not fit together, or a parameter is none of its options.
        ImportError
            matplotlib is not installed.
        """
        captions = check_captions(y, X)
        ranker = unwrap_ranker(estimator)
        text_embedding, wording = embed_captions(ranker, captions.texts)
        image_embedding = estimator.transform(X)
        image_offset, text_offset = hub_offsets(ranker, image_embedding, text_embedding)
        return cls.from_predictions(
            image_embedding,
            text_embedding,
            captions.image_index,
            wording=wording,
            max_k=max_k,
            definition=definition,
            similarity=getattr(ranker, "similarity", "cosine"),
            image_offset=image_offset,
            text_offset=text_offset,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        image_embedding: Any,
        text_embedding: Any,
        text_to_image: Any,
        *,
        max_k: int = 50,
        definition: str = "hit",
        similarity: str = "cosine",
        wording: Any = None,
        image_offset: Any = None,
        text_offset: Any = None,
        ax: Any = None,
    ) -> "RecallCurveDisplay":
        """Draw the curves of embeddings.

        Parameters
        ----------
        image_embedding : array-like of shape (n_images, n_components)
            Embedded images.
        text_embedding : array-like of shape (n_texts, n_components)
            Embedded texts.
        text_to_image : array-like of shape (n_texts,), int
            ``text_to_image[j]`` is the row of the image that text j describes.
        max_k : int, default=50
            The largest k; less where both galleries are smaller.
        definition : {"hit", "recall"}, default="hit"
            See `retrieval_report`.
        similarity : {"cosine", "order", "order-root"}, default="cosine"
            See `retrieval_ranks`.
        wording : array-like of shape (n_texts,), optional
            See `retrieval_ranks`.
        image_offset : array-like of shape (n_images,), optional
        text_offset : array-like of shape (n_texts,), optional
            See `retrieval_ranks`.
        ax : matplotlib Axes, optional
            What to draw into; a new figure by default.

        Returns
        -------
        RecallCurveDisplay
            Drawn.

        Raises
        ------
        ValueError
            The embeddings do not fit together, or a parameter is none of its options.
        ImportError
            matplotlib is not installed.
        """
        if definition == "all":
            raise ValueError("a curve shows one definition: 'hit' or 'recall', got 'all'")
        check_report_options(max_k, definition)
        image, text, owner, _ = check_retrieval_input(image_embedding, text_embedding, text_to_image, None)
        same = check_wording(wording, len(text))
        offsets = check_offsets(image_offset, text_offset, len(image), len(text), similarity)
        ranks = rank_directions(image, text, owner, None, similarity, DIRECTIONS, definition == "recall", same, offsets)
        # Beyond both galleries the curves are 1 and tell nothing.
        cutoffs = range(1, min(check_cutoff(max_k), max(len(image), len(text))) + 1)
        share = hit_at_k if definition == "hit" else recall_at_k
        curves = {direction: np.array([share(ranks[direction], k) for k in cutoffs]) for direction in DIRECTIONS}
        n_texts_of, n_images_of = _count_right(owner, np.arange(len(text)) if same is None else same)
        chance = {
            "i2t": _chance(n_texts_of, len(text), cutoffs, definition),
            "t2i": _chance(n_images_of, len(image), cutoffs, definition),
        }
        return cls(curves=curves, chance=chance, definition=definition).plot(ax)

    def plot(self, ax: Any = None) -> "RecallCurveDisplay":
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            What to draw into; a new figure by default.

        Returns
        -------
        RecallCurveDisplay
            The display itself, with `figure_`, `axes_` and `lines_`.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        plt = import_pyplot(type(self))
        if ax is None:
            _, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
        self.lines_ = {}
        for direction, curve in self.curves.items():
            k = np.arange(1, len(curve) + 1)
            colour, name = _COLOURS[direction], _NAMES[direction]
            (self.lines_[direction],) = ax.plot(k, curve, color=colour, linewidth=2, label=name)
            ax.plot(k, self.chance[direction], color=colour, linewidth=1.2, linestyle=":", label=f"chance, {name}")
        largest = max(len(curve), 2)
        ax.set(xlabel="k", ylabel=f"{self.definition}@k", ylim=(0, 1), xlim=(1, largest))
        # matplotlib's own ticks begin at 0; k begins at 1, and is a whole number.
        ax.set_xticks([1, *(tick for tick in ax.get_xticks() if 1 < tick <= largest and tick == int(tick))])
        ax.grid(color="#e6e6e6", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8.5)
        self.figure_ = ax.figure
        self.axes_ = np.array([ax], dtype=object)
        return self


def _count_right(owner: np.ndarray, wording: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the texts that are right for each image, (n_images,), and the images right for each text, (n_texts,)."""
    number = np.unique(wording, return_inverse=True)[1]
    # Each image and wording once: rows (image, number).
    pairs = np.unique(np.column_stack([owner, number]), axis=0)
    n_texts = np.bincount(pairs[:, 0], weights=np.bincount(number)[pairs[:, 1]]).astype(np.int64)
    return n_texts, np.bincount(pairs[:, 1])[number]


def _chance(n_positives: np.ndarray, n_gallery: int, cutoffs: range, definition: str) -> np.ndarray:
    """Return what random order reaches for queries with that many positives each."""
    if definition == "recall":
        return np.minimum(np.array(cutoffs) / n_gallery, 1)
    # All positives and negatives tied: hits are then those of a random order, exactly.
    everything_ties = RetrievalRanks(np.zeros_like(n_positives), n_gallery - n_positives, n_positives)
    return np.array([hit_at_k(everything_ties, k) for k in cutoffs])
