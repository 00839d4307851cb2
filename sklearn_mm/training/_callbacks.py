"""What scikit-learn's callbacks see of a run."""

from typing import Any

from sklearn.callback import CallbackSupportMixin

from sklearn_mm.training._loop import EpochRecord

__all__ = ["EpochCallbacks"]


class EpochCallbacks:
    """One `fit` as its callbacks see it: a task with an epoch below it for each pass over the data.

    Parameters
    ----------
    estimator : CallbackSupportMixin
        That is fitted, under `with_callbacks`.
    n_epochs : int
        Of all stages.
    """

    def __init__(self, estimator: CallbackSupportMixin, n_epochs: int) -> None:
        self._estimator = estimator
        # Private by its name, but documented by scikit-learn for estimators outside of it.
        self._fit = estimator._init_callback_context(max_subtasks=n_epochs)
        self._epoch: Any = None

    def begin(self) -> None:
        """Training begins, or goes on from a checkpoint."""
        self._fit.call_on_fit_task_begin(estimator=self._estimator)

    def begin_epoch(self) -> None:
        """An epoch begins."""
        self._epoch = self._fit.subcontext(task_name="epoch").call_on_fit_task_begin(estimator=self._estimator)

    def end_epoch(self, record: EpochRecord) -> bool:
        """An epoch has ended, and the estimator's history holds it; return whether a callback wants to stop."""
        # The attributes as a function: scikit-learn calls it only if a callback asks for the fitted estimator, and sets
        # them on a shallow copy. The networks in it are the ones in training.
        stop = self._epoch.call_on_fit_task_end(
            estimator=self._estimator, metadata=record, reconstruction_attributes=self._attributes
        )
        return bool(stop)

    def end(self) -> None:
        """Training has ended."""
        self._fit.call_on_fit_task_end(estimator=self._estimator, reconstruction_attributes=self._attributes)

    def _attributes(self) -> dict[str, Any]:
        """Return what a callback needs to see the estimator as it stands."""
        learnt = vars(self._estimator).items()
        # _n_features_out is what get_feature_names_out reads.
        return {name: value for name, value in learnt if name.endswith("_") or name == "_n_features_out"}
