"""Sentences, and the pictures they find."""

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

from sklearn_mm._checks import check_k, check_texts
from sklearn_mm._tables import as_rows, shown
from sklearn_mm.display._matplotlib import GREEN, GREY, import_pyplot
from sklearn_mm.display._pictures import read_pictures
from sklearn_mm.images import Pictures
from sklearn_mm.metrics import check_embedding, resolve_similarity, unwrap_ranker

__all__ = ["RetrievalGridDisplay"]

_PICTURE_INCHES = 1.3
_TEXT_INCHES = 2.3
_TEXT_COLUMNS = 30  # characters in a line, which fit into the width above
_TEXT_LINES = 6


class RetrievalGridDisplay:
    """A row for each sentence: its words, and the pictures it finds, best first.

    Pictures known to be right are marked with a green frame and a tick. Make it by `from_estimator` or
    `from_predictions`.

    Parameters
    ----------
    texts : list of str, length n_query
        The sentences.
    images : sequence of length n_images
        The pictures that the indices point into: paths, bytes, PIL images or arrays. What is shown is cut
        to a square.
    indices : ndarray of shape (n_query, k), int
        Rows of `images`, best first; -1 leaves a place empty.
    scores : ndarray of shape (n_query, k), float, optional
        Written below the pictures.
    correct : list of set of int, length n_query, optional
        For each sentence the rows of `images` that are right.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure drawn to last.
    axes_ : ndarray of shape (n_query, 1 + k) of matplotlib Axes
        The sentence and the pictures of each row.

    See Also
    --------
    RecallCurveDisplay : How often the right picture is among the first k.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_mm.datasets import make_captioned_shapes
    >>> from sklearn_mm.display import RetrievalGridDisplay
    >>> shapes = make_captioned_shapes(6, image_size=32, random_state=0)
    >>> display = RetrievalGridDisplay.from_predictions(
    ...     [shapes.captions[2][0]], shapes.images, [[4, 2, 0]], correct=[2]
    ... )
    >>> display.axes_.shape
    (1, 4)
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, texts: Any, images: Any, indices: Any, scores: Any = None, correct: Any = None):
        self.texts = texts
        self.images = images
        self.indices = indices
        self.scores = scores
        self.correct = correct

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        texts: Any,
        images: Any,
        *,
        correct: Any = None,
        k: int = 5,
        use_gallery: bool = False,
    ) -> "RetrievalGridDisplay":
        """Search pictures with a fitted ranker, and draw what is found.

        Parameters
        ----------
        estimator : estimator with transform and transform_text
            Fitted; or a pipeline or search around one.
        texts : sequence of str, length n_query
            The sentences to search by.
        images : sequence of length n_images
            The pictures to search among, as the estimator's ``transform`` takes them.
        correct : sequence of length n_query of (int or collection of int), optional
            For each sentence the row or rows of `images` that are right.
        k : int, default=5
            How many pictures to show for each sentence.
        use_gallery : bool, default=False
            Search the estimator's own gallery by its ``search_images`` and embed nothing; `images` are the
            pictures of the gallery, row by row, and may be those that the features were made of.

        Returns
        -------
        RetrievalGridDisplay
            Drawn.

        Raises
        ------
        TypeError
            The estimator has no ``transform_text``, or `texts` is a single string.
        ValueError
            `k` is larger than the number of images, the gallery is larger than `images`, or `correct` does
            not fit.
        ImageReadError
            A picture that was found cannot be read.
        ImportError
            matplotlib is not installed.
        """
        ranker = unwrap_ranker(estimator)
        texts = check_texts(texts)
        pictures = Pictures(images)
        k = check_k(k, len(pictures))
        if use_gallery:
            scores, indices = ranker.search_images(texts, k)
        else:
            scores, indices = _search(
                estimator.transform(images), ranker.transform_text(texts), k, getattr(ranker, "similarity", "cosine")
            )
        return cls.from_predictions(texts, images, indices, scores=scores, correct=correct)

    @classmethod
    def from_predictions(
        cls, texts: Any, images: Any, indices: Any, *, scores: Any = None, correct: Any = None
    ) -> "RetrievalGridDisplay":
        """Draw what was found before.

        Parameters
        ----------
        texts : sequence of str, length n_query
            The sentences.
        images : sequence of length n_images
            The pictures that `indices` points into.
        indices : array-like of shape (n_query, k), int
            Rows of `images`, best first, as `search_images` and `ExactIndex.search` return them.
        scores : array-like of shape (n_query, k), optional
            To be written below the pictures.
        correct : sequence of length n_query of (int or collection of int), optional
            For each sentence the row or rows of `images` that are right.

        Returns
        -------
        RetrievalGridDisplay
            Drawn.

        Raises
        ------
        TypeError
            `texts` is a single string, or `correct` holds something else than rows.
        ValueError
            Shapes do not fit together, or an index points outside `images`.
        ImageReadError
            A picture that was found cannot be read.
        ImportError
            matplotlib is not installed.
        """
        texts = check_texts(texts)
        indices = _check_indices(indices, len(texts), len(Pictures(images)))
        if scores is not None:
            scores = np.asarray(scores, dtype=np.float64)
            if scores.shape != indices.shape:
                raise ValueError(f"scores must have the shape of indices, {indices.shape}, got {scores.shape}")
        if correct is not None:
            correct = _check_correct(correct, len(texts))
        return cls(texts=texts, images=images, indices=indices, scores=scores, correct=correct).plot()

    def plot(self, *, figure: Any = None) -> "RetrievalGridDisplay":
        """Draw the grid.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, optional
            What to draw into; a new figure of fitting size by default.

        Returns
        -------
        RetrievalGridDisplay
            The display itself, with `figure_` and `axes_`.

        Raises
        ------
        ImageReadError
            A picture that was found cannot be read; the message names its row.
        ImportError
            matplotlib is not installed.
        """
        plt = import_pyplot(type(self))
        n_query, k = self.indices.shape
        # Each is read once, however many sentences find it.
        pictures = read_pictures(self.images, np.unique(self.indices[self.indices >= 0]))
        if figure is None:
            size = (_TEXT_INCHES + k * _PICTURE_INCHES, n_query * (_PICTURE_INCHES + 0.15) + 0.2)
            figure = plt.figure(figsize=size, layout="constrained")
            figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
        widths = [_TEXT_INCHES, *[_PICTURE_INCHES] * k]
        self.axes_ = figure.subplots(n_query, 1 + k, squeeze=False, width_ratios=widths)
        self.figure_ = figure
        for query, row in enumerate(self.axes_):
            self._write_text(row[0], self.texts[query])
            for place, ax in enumerate(row[1:]):
                self._draw_place(ax, query, place, pictures)
        return self

    def _write_text(self, ax: Any, text: str) -> None:
        ax.axis("off")
        lines = textwrap.wrap(text, _TEXT_COLUMNS, max_lines=_TEXT_LINES, placeholder=" …")
        ax.text(
            1,
            0.5,
            "\n".join(lines),
            transform=ax.transAxes,
            ha="right",
            va="center",
            fontsize=9.5,
            linespacing=1.3,
            parse_math=False,  # a price in dollars is no formula
        )

    def _draw_place(self, ax: Any, query: int, place: int, pictures: dict[int, np.ndarray]) -> None:
        index = int(self.indices[query, place])
        ax.set(xticks=[], yticks=[])
        if index < 0:
            ax.axis("off")
            return
        ax.imshow(pictures[index], interpolation="antialiased")
        if self.scores is not None:
            ax.set_xlabel(f"{self.scores[query, place]:.2f}", fontsize=7.5, color=GREY, labelpad=3)
        is_right = self.correct is not None and index in self.correct[query]
        ax.spines[:].set(color=GREEN if is_right else "#d8d8d8", linewidth=3.5 if is_right else 0.6)
        if is_right:
            ax.text(
                0.03,
                0.97,
                "✓",
                transform=ax.transAxes,
                ha="left",
                va="top",
                fontsize=10,
                color="white",
                weight="bold",
                bbox={"boxstyle": "circle,pad=0.18", "facecolor": GREEN, "edgecolor": "white"},
            )


def _search(image_embedding: Any, text_embedding: Any, k: int, similarity: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and rows (n_query, k) of the best images of a few texts."""
    image = check_embedding(image_embedding, "transform(images)")
    text = check_embedding(text_embedding, "transform_text(texts)")
    scores = resolve_similarity(similarity, image, text).block(slice(None), slice(None)).T  # (n_query, n_images)
    # stable: of equal scores the first, as in a gallery.
    indices = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, indices, axis=1), indices


def _check_indices(indices: Any, n_query: int, n_images: int) -> np.ndarray:
    array = np.asarray(indices)
    if array.ndim != 2 or len(array) != n_query or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"indices must be ints of shape (n_query, k) for {n_query} texts, "
            f"got shape {array.shape} of dtype {array.dtype}"
        )
    if array.max() >= n_images:
        raise ValueError(
            f"indices must name rows of the {n_images} images, got {array.max()}; "
            "pass the pictures of the gallery, all of them and in its order"
        )
    return array


def _check_correct(correct: Any, n_query: int) -> list[set[int]]:
    correct = as_rows(correct, "the right images")
    if len(correct) != n_query:
        raise ValueError(f"correct must hold one entry for each of the {n_query} texts, got {len(correct)}")
    return [{_check_row(row) for row in (rows if isinstance(rows, Iterable) else [rows])} for rows in correct]


def _check_row(row: Any) -> int:
    # True is an int: a mask in the place of rows would mark rows 0 and 1.
    if isinstance(row, bool | np.bool_) or not isinstance(row, int | np.integer):
        raise TypeError(f"correct must hold rows of images (ints) for each text, got {shown(row)}")
    return int(row)
