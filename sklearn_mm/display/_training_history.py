"""How training went, epoch by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sklearn_mm.display._matplotlib import BLUE, GREY, ORANGE, import_pyplot

__all__ = ["TrainingHistoryDisplay"]

_SIDES = {"train": BLUE, "val": ORANGE}
_NAMES = {"train": "training", "val": "validation"}


class TrainingHistoryDisplay:
    """Losses and validation scores over the epochs of a fit.

    Make it by `from_estimator` or `from_history`. Losses and scores have a panel each; the epoch of the best
    validation score, whose weights early stopping keeps, is marked.

    Parameters
    ----------
    history : list of dict
        One record an epoch, with "epoch" and any numbers named ``train_...`` or ``val_...``: a name with "loss"
        in it is a loss (smaller is better), any other a score. Other entries are left alone, and a record
        need not have every number.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure drawn to last.
    axes_ : ndarray of shape (n_panels,) of matplotlib Axes
        The panel of each quantity, losses first.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_mm.display import TrainingHistoryDisplay
    >>> history = [
    ...     {"epoch": 1, "train_loss": 2.0, "val_rsum": 120.0},
    ...     {"epoch": 2, "train_loss": 1.2, "val_rsum": 180.0},
    ... ]
    >>> display = TrainingHistoryDisplay.from_history(history)
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['loss', 'rsum']
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, history: Sequence[Mapping[str, Any]]):
        self.history = history

    @classmethod
    def from_estimator(cls, estimator: Any, *, axes: Any = None) -> "TrainingHistoryDisplay":
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : fitted estimator
            One that has a ``history_``; or a pipeline that ends in one, or a search around one.
        axes : sequence of matplotlib Axes, optional
            A panel for each quantity; a new figure by default.

        Returns
        -------
        TrainingHistoryDisplay
            Drawn.

        Raises
        ------
        TypeError
            Nothing in the estimator has a ``history_``: it is not fitted, or does not train by epochs.
        ValueError
            The history has nothing to draw, or `axes` are too few or too many.
        ImportError
            matplotlib is not installed.
        """
        inner = estimator
        while not hasattr(inner, "history_"):
            if hasattr(inner, "steps"):
                inner = inner.steps[-1][1]
            elif hasattr(inner, "best_estimator_"):
                inner = inner.best_estimator_
            else:
                raise TypeError(
                    "expected a fitted estimator with a history_, or a pipeline that ends in one, "
                    f"got {type(estimator).__name__}"
                )
        return cls.from_history(inner.history_, axes=axes)

    @classmethod
    def from_history(cls, history: Sequence[Mapping[str, Any]], *, axes: Any = None) -> "TrainingHistoryDisplay":
        """Draw epoch records.

        Parameters
        ----------
        history : list of dict
            One record an epoch; see the parameter of the class.
        axes : sequence of matplotlib Axes, optional
            A panel for each quantity; a new figure by default.

        Returns
        -------
        TrainingHistoryDisplay
            Drawn.

        Raises
        ------
        ValueError
            The history has nothing to draw, or `axes` are too few or too many.
        ImportError
            matplotlib is not installed.
        """
        return cls(history=history).plot(axes)

    def plot(self, axes: Any = None) -> "TrainingHistoryDisplay":
        """Draw the panels.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, optional
            A panel for each quantity; a new figure by default.

        Returns
        -------
        TrainingHistoryDisplay
            The display itself, with `figure_` and `axes_`.

        Raises
        ------
        ValueError
            The history has nothing to draw, or `axes` are too few or too many.
        ImportError
            matplotlib is not installed.
        """
        plt = import_pyplot(type(self))
        quantities = self._quantities()
        if axes is None:
            _, axes = plt.subplots(
                1,
                len(quantities),
                figsize=(0.6 + 3.9 * len(quantities), 3.2),
                squeeze=False,
                layout="constrained",
            )
        self.axes_ = np.array(axes, dtype=object).ravel()
        if len(self.axes_) != len(quantities):
            raise ValueError(
                f"axes must hold one panel for each of {', '.join(quantities)}, got {len(self.axes_)} axes"
            )
        for ax, quantity in zip(self.axes_, quantities, strict=True):
            self._draw_panel(ax, quantity)
        self.figure_ = self.axes_[0].figure
        return self

    def _quantities(self) -> list[str]:
        """Return what is recorded of training or validation, losses first."""
        # A dict and not a set, for the order in which they were recorded; a record need not have all of them.
        names = dict.fromkeys(
            key.partition("_")[2]
            for record in self.history
            for key in record
            if key.partition("_")[0] in _SIDES and key.partition("_")[2]
        )
        if not names:
            raise ValueError(
                "history holds no numbers named 'train_...' or 'val_...'; was the estimator trained for an epoch?"
            )
        # False sorts before True, and names keep their order otherwise.
        return sorted(names, key=lambda name: "loss" not in name)

    def _draw_panel(self, ax: Any, quantity: str) -> None:
        for side, colour in _SIDES.items():
            key = f"{side}_{quantity}"
            points = [(record["epoch"], record[key]) for record in self.history if record.get(key) is not None]
            if not points:
                continue
            epochs, values = np.array(points, dtype=float).T
            ax.plot(
                epochs,
                values,
                color=colour,
                linewidth=2,
                marker="o",
                # So many points would run into one another.
                markersize=3.5 if len(epochs) < 40 else 0,
                label=_NAMES[side],
            )
            # Not for a loss, of which the largest value is not the best.
            if side == "val" and "loss" not in quantity and np.isfinite(values).any():
                self._mark_best(ax, epochs, values)
        ax.set(xlabel="epoch", ylabel=quantity.replace("_", " "))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(color="#e6e6e6", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8.5)

    @staticmethod
    def _mark_best(ax: Any, epochs: np.ndarray, values: np.ndarray) -> None:
        best = int(np.nanargmax(values))
        ax.axvline(epochs[best], color=GREY, linewidth=1, linestyle="--", zorder=1)
        ax.plot(
            epochs[best],
            values[best],
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=ORANGE,
            linestyle="none",
            label=f"best: {values[best]:.4g} in epoch {epochs[best]:.0f}",
        )
