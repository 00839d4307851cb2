"""Pictures, and the labels they get: right, wrong and missed ones told apart."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from sklearn_mm._checks import check_labels
from sklearn_mm._tables import as_number_table, is_frame, shown
from sklearn_mm._unicode import normal_form
from sklearn_mm.display._matplotlib import BLUE, GREEN, GREY, ORANGE, import_pyplot
from sklearn_mm.display._pictures import read_pictures
from sklearn_mm.images import Pictures

__all__ = ["AnnotationGridDisplay"]

_PICTURE_INCHES = 1.35
_TEXT_INCHES = 1.55
_TEXT_POINTS = 72 * _TEXT_INCHES - 12  # what a line of text may take of the width above
_FONT_POINTS = 8
_LINES = 9  # of labels beside a picture, and of its head


class _Style(NamedTuple):
    mark: str
    colour: str
    box: dict[str, Any] | None = None


_BOX: dict[str, Any] = {"boxstyle": "round,pad=0.06,rounding_size=0.2", "linewidth": 0.8}
_DASHED = {**_BOX, "facecolor": "none", "edgecolor": BLUE, "linestyle": (0, (2, 1.5))}
_STYLES = {  # told apart by mark and box too, so that print without colour will do
    "right": _Style("✓", GREEN),
    "wrong": _Style("✗", "white", {**_BOX, "facecolor": ORANGE, "edgecolor": ORANGE}),
    "missed": _Style("–", BLUE, _DASHED),  # noqa: RUF001, the dash is a mark
    "predicted": _Style("", "black"),
}


class AnnotationGridDisplay:
    """Pictures side by side, each with its labels.

    Rightly predicted labels are green with a tick, wrong ones white on orange with a cross, and missed ones blue
    with a dash, in a dashed frame; above them it says how many are predicted and how many are true. Make it by
    `from_estimator` or `from_predictions`.

    Parameters
    ----------
    images : sequence of length n_images
        Paths, bytes, PIL images or arrays. What is shown is cut to a square.
    predicted : list of list of str, length n_images
        The labels that each picture gets, as they are to be written, in this order.
    true : list of list of str, length n_images, optional
        The labels that are true of it. Without them nothing is told apart.
    n_columns : int, default=3
        Pictures side by side.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure drawn to last.
    axes_ : ndarray of shape (n_images, 2) of matplotlib Axes
        Each picture, and its labels.

    See Also
    --------
    RetrievalGridDisplay : Sentences, and the pictures they find.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_mm.datasets import make_captioned_shapes
    >>> from sklearn_mm.display import AnnotationGridDisplay
    >>> shapes = make_captioned_shapes(4, image_size=32, random_state=0)
    >>> guesses = [["star", "blue"]] * 4
    >>> display = AnnotationGridDisplay.from_predictions(shapes.images, shapes.tags, guesses, n_columns=2)
    >>> display.axes_.shape
    (4, 2)
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, images: Any, predicted: Any, true: Any = None, n_columns: int = 3):
        self.images = images
        self.predicted = predicted
        self.true = true
        self.n_columns = n_columns

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        Y: Any = None,
        *,
        images: Any = None,
        label_names: Any = None,
        n_columns: int = 3,
    ) -> "AnnotationGridDisplay":
        """Annotate pictures with a fitted estimator, and draw them.

        Parameters
        ----------
        estimator : classifier of several labels
            Fitted.
        X : sequence of length n_images
            What the estimator predicts from.
        Y : array-like or sparse matrix of shape (n_images, n_labels), or sequence of sequences, optional
            The true labels: an indicator, or the labels of each picture.
        images : sequence of length n_images, optional
            The pictures, where `X` is their features or a table of pictures and tags; `X` by default.
        label_names : array-like of shape (n_labels,), optional
            What the columns of indicators stand for; by default ``estimator.classes_``.
        n_columns : int, default=3
            Pictures side by side.

        Returns
        -------
        AnnotationGridDisplay
            Drawn.

        Raises
        ------
        ValueError
            Lengths do not fit together, or `X` is a table of several columns and there are no `images`.
        ImageReadError
            A picture cannot be read.
        ImportError
            matplotlib is not installed.
        """
        if images is None and getattr(X, "ndim", 1) == 2 and hasattr(X, "iloc") and X.shape[1] > 1:
            raise ValueError(f"X is a table of {X.shape[1]} columns; pass the pictures too, as in images=X['image']")
        if label_names is None:
            label_names = getattr(estimator, "classes_", None)
        return cls.from_predictions(
            X if images is None else images, Y, estimator.predict(X), label_names=label_names, n_columns=n_columns
        )

    @classmethod
    def from_predictions(
        cls, images: Any, Y_true: Any, Y_pred: Any, *, label_names: Any = None, n_columns: int = 3
    ) -> "AnnotationGridDisplay":
        """Draw pictures with labels that were predicted before.

        Parameters
        ----------
        images : sequence of length n_images
            The pictures.
        Y_true : array-like or sparse matrix of shape (n_images, n_labels), sequence of sequences, or None
            The true labels: an indicator (NaN counts as not true), or the labels of each picture; None if they
            are not known.
        Y_pred : array-like or sparse matrix of shape (n_images, n_labels), or sequence of sequences
            The predicted labels, in either form.
        label_names : array-like of shape (n_labels,), optional
            What the columns of indicators stand for; their numbers by default.
        n_columns : int, default=3
            Pictures side by side.

        Returns
        -------
        AnnotationGridDisplay
            Drawn.

        Raises
        ------
        ValueError
            Lengths do not fit together, or `n_columns` is not positive.
        TypeError
            The labels of a picture are a single str.
        ImageReadError
            A picture cannot be read.
        ImportError
            matplotlib is not installed.
        """
        if isinstance(n_columns, bool) or not isinstance(n_columns, int | np.integer) or n_columns < 1:
            raise ValueError(f"n_columns must be a positive int, got {n_columns!r}")
        n_images = len(Pictures(images))
        predicted = _list_labels(Y_pred, label_names, n_images, "Y_pred")
        true = None if Y_true is None else _list_labels(Y_true, label_names, n_images, "Y_true")
        return cls(images=images, predicted=predicted, true=true, n_columns=int(n_columns)).plot()

    def plot(self, *, figure: Any = None) -> "AnnotationGridDisplay":
        """Draw the grid.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, optional
            What to draw into; a new figure of fitting size by default.

        Returns
        -------
        AnnotationGridDisplay
            The display itself, with `figure_` and `axes_`.

        Raises
        ------
        ImageReadError
            A picture cannot be read; the message names its row.
        ImportError
            matplotlib is not installed.
        """
        plt = import_pyplot(type(self))
        n_images = len(self.predicted)
        pictures = read_pictures(self.images, np.arange(n_images))
        n_columns = min(self.n_columns, n_images)
        n_rows = -(-n_images // n_columns)
        if figure is None:
            size = (n_columns * (_PICTURE_INCHES + _TEXT_INCHES), n_rows * (_PICTURE_INCHES + 0.2) + 0.3)
            figure = plt.figure(figsize=size, layout="constrained")
            figure.get_layout_engine().set(w_pad=0.03, h_pad=0.06, wspace=0, hspace=0)
        widths = [_PICTURE_INCHES, _TEXT_INCHES] * n_columns
        self.axes_ = figure.subplots(n_rows, 2 * n_columns, squeeze=False, width_ratios=widths).reshape(-1, 2)
        self.figure_ = figure
        # The last row may have places left.
        for picture_ax, text_ax in self.axes_[n_images:]:
            picture_ax.axis("off")
            text_ax.axis("off")
        self.axes_ = self.axes_[:n_images]
        for row, (picture_ax, text_ax) in enumerate(self.axes_):
            picture_ax.imshow(pictures[row], interpolation="antialiased")
            picture_ax.set(xticks=[], yticks=[], anchor="N")  # level with the head of its labels
            picture_ax.spines[:].set(color="#d8d8d8", linewidth=0.6)
            self._write_labels(text_ax, row)
        if self.true is not None:
            self._draw_legend(plt)
        return self

    def _draw_legend(self, plt: Any) -> None:
        kinds = ("right", "wrong", "missed")
        legend = self.figure_.legend(
            [plt.Line2D([], [], linestyle="none") for _ in kinds],
            [f"{_STYLES[kind].mark} {kind}" for kind in kinds],
            loc="outside lower center",
            ncols=len(kinds),
            fontsize=_FONT_POINTS,
            frameon=False,
            handlelength=0,
            handletextpad=0,
        )
        for text, kind in zip(legend.get_texts(), kinds, strict=True):
            text.set(color=_STYLES[kind].colour, bbox=_STYLES[kind].box)

    def labels_of(self, row: int) -> list[tuple[str, str]]:
        """Return the labels of a picture, each with what it is.

        Parameters
        ----------
        row : int
            The picture.

        Returns
        -------
        list of (str, str)
            Labels and "right", "wrong" or "missed", in this order; "predicted" where the truth is not known.
        """
        if self.true is None:
            return [(label, "predicted") for label in self.predicted[row]]
        predicted, true = self.predicted[row], self.true[row]
        return [
            *((label, "right") for label in predicted if label in true),
            *((label, "wrong") for label in predicted if label not in true),
            *((label, "missed") for label in true if label not in predicted),
        ]

    def _write_labels(self, ax: Any, row: int) -> None:
        ax.axis("off")
        head = f"{len(self.predicted[row])} predicted"
        if self.true is not None:
            head += f", {len(self.true[row])} true"
        plain = _Style("", GREY)
        lines = [(head, plain)]
        for label, kind in self.labels_of(row):
            style = _STYLES[kind]
            lines.append((_shorten(f"{style.mark} {label}".strip()), style))
        if len(lines) > _LINES:
            # The line that counts the others takes the place of one.
            lines = [*lines[: _LINES - 1], (f"and {len(lines) - _LINES + 1} more", plain)]
        for place, (text, style) in enumerate(lines):
            ax.text(
                0.06,
                1 - place / _LINES,
                text,
                transform=ax.transAxes,
                ha="left",
                va="top",
                fontsize=_FONT_POINTS,
                color=style.colour,
                bbox=style.box,
                parse_math=False,  # a price in dollars is no formula
            )


def _shorten(text: str) -> str:
    """Cut a line that is too wide to stand beside a picture."""
    # Here, as matplotlib is optional.
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=_FONT_POINTS)

    # Measured, as letters are not equally wide; from the outlines, before anything is drawn.
    def width(text: str) -> float:
        points: float = TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]
        return points

    text = " ".join(text.split())
    if width(text) <= _TEXT_POINTS:
        return text
    while text and width(f"{text}…") > _TEXT_POINTS:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _list_labels(Y: Any, label_names: Any, n_images: int, name: str) -> list[list[str]]:
    """Return the labels of each picture as they are written."""
    Y = check_labels(Y)
    if sparse.issparse(Y):
        Y = sparse.csr_array(Y)
        # == 1, as a sparse matrix may store 0, and NaN for what is not known.
        rows = [Y.indices[start:stop][Y.data[start:stop] == 1] for start, stop in pairwise(Y.indptr)]
    elif _is_indicator(Y):
        rows = [np.flatnonzero(row == 1) for row in as_number_table(Y)]
    else:
        for row, labels in enumerate(Y):
            if isinstance(labels, str):
                raise TypeError(f"{name} must hold a list of labels for each picture, got {shown(labels)} in row {row}")
        label_names, rows = None, list(Y)
    if len(rows) != n_images:
        raise ValueError(f"{name} must have a row for each of the {n_images} images, got {len(rows)}")
    names = None if label_names is None else np.asarray(label_names)
    # in one form of Unicode, so that a label that looks right is right
    return [[normal_form(str(label if names is None else names[label])) for label in row] for row in rows]


def _is_indicator(Y: Any) -> bool:
    """Tell a matrix of 0, 1 and NaN from lists of labels."""
    if (
        not is_frame(Y)
        and not hasattr(Y, "ndim")
        and not all(
            isinstance(row, Sequence | np.ndarray) and not isinstance(row, str) and len(row) == len(Y[0]) for row in Y
        )
    ):
        return False
    array = as_number_table(Y)
    # NaN is unequal to itself, and is no mark but an unknown one.
    return array.ndim == 2 and array.dtype.kind in "biuf" and bool((np.isin(array, (0, 1)) | (array != array)).all())
