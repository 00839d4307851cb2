"""Checks that hold for estimators of pictures, of texts and of both."""

import io
import pickle
from inspect import Parameter, signature
from typing import Any
from unittest import SkipTest

import joblib
import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import check_random_state

from sklearn_mm.testing._case import (
    ANSWERS,
    Case,
    Check,
    expect,
    expect_error,
    expect_near,
    expect_same,
    expect_unfitted_error,
    take,
)
from sklearn_mm.testing._media import series

__all__ = ["COMMON_CHECKS", "PIPELINE_CHECKS", "TRANSFORMER_CHECKS"]


# Any estimator --------------------------------------------------------------------------------------------------------


def check_init_only_stores(case: Case) -> None:
    """The constructor stores its parameters as they are, and sets nothing else."""
    params = case.estimator.get_params(deep=False)
    parameters = signature(type(case.estimator).__init__).parameters
    defaults = {name: parameters[name].default for name in params if parameters[name].default is not Parameter.empty}
    # The parameters of the estimator given, and the defaults, which may be copied or replaced by themselves.
    for given in (params, {**params, **defaults}):
        built = type(case.estimator)(**given)
        # `is`, as scikit-learn's clone asks: a copy of a parameter is a change.
        changed = [name for name, value in given.items() if getattr(built, name) is not value]
        expect(not changed, f"{case.name}.__init__ changes its parameters: {', '.join(changed)}")
    added = sorted(set(vars(built)) - set(params))
    expect(not added, f"{case.name}.__init__ sets more than its parameters: {', '.join(added)}")


def check_parameters_survive_clone_and_set_params(case: Case) -> None:
    """`clone` and `set_params` give an estimator with equal parameters."""
    params = case.estimator.get_params()
    # By hash, as nested estimators and arrays do not compare by ==.
    expect(joblib.hash(clone(case.estimator).get_params()) == joblib.hash(params), f"clone changes {case.name}")
    other = clone(case.estimator)
    expect(other.set_params(**params) is other, f"{case.name}.set_params does not return self")
    changed = [name for name, value in other.get_params().items() if value is not params[name]]
    expect(not changed, f"{case.name}.set_params does not store: {', '.join(changed)}")


def check_fit_returns_self_and_keeps_parameters(case: Case) -> None:
    """`fit` returns the estimator, and leaves its parameters, nested estimators included, as they were."""
    estimator = case.fresh()
    # Hashes, as a parameter that is changed in place is changed in what was noted, too.
    before = {name: joblib.hash(value) for name, value in estimator.get_params().items()}
    expect(estimator.fit(case.X, case.y) is estimator, f"{case.name}.fit does not return self")
    changed = [name for name, value in estimator.get_params().items() if joblib.hash(value) != before[name]]
    expect(not changed, f"{case.name}.fit changes its parameters: {', '.join(changed)}")


def check_unfitted_estimators_say_so(case: Case) -> None:
    """Every method that needs a fit raises `NotFittedError` before it."""
    for method in ANSWERS:
        estimator = case.fresh()
        if hasattr(estimator, method):
            expect_unfitted_error(f"{case.name}.{method} before fit", getattr(estimator, method), case.X)


def check_input_is_not_changed(case: Case) -> None:
    """Neither `fit` nor any answer changes X or y."""
    before = joblib.hash((case.X, case.y))
    estimator = case.fresh().fit(case.X, case.y)
    case.answers(estimator)
    expect(joblib.hash((case.X, case.y)) == before, f"{case.name} changes the data it is given")


def check_global_random_states_are_left_alone(case: Case) -> None:
    """Fitting and answering draw nothing from the global random states of numpy and torch."""

    def states() -> tuple[Any, ...]:
        # None stands for numpy's global state.
        return joblib.hash(check_random_state(None).get_state()), joblib.hash(torch.random.get_rng_state().numpy())

    before = states()
    case.answers(case.fresh().fit(case.X, case.y))
    expect(states() == before, f"{case.name} changes the global random state of numpy or torch")


def check_fits_with_one_random_state_agree(case: Case) -> None:
    """Two fits with the same integer `random_state` answer alike."""
    again = case.fresh().fit(case.X, case.y)
    for method, answer in case.answers(case.fitted).items():
        expect_near(getattr(again, method)(case.X), answer, f"{case.name}.{method} after a second fit")


def check_fit_starts_anew(case: Case) -> None:
    """`fit` forgets an earlier fit, on other data, altogether."""
    # Fewer rows have other words and other statistics, which a second fit may not keep.
    half = np.arange(len(case.X) // 2)
    again = case.fresh().fit(take(case.X, half), take(case.y, half)).fit(case.X, case.y)
    for method, answer in case.answers(case.fitted).items():
        expect_near(getattr(again, method)(case.X), answer, f"{case.name}.{method} after an earlier fit on other rows")


def check_pickled_estimators_answer_alike(case: Case) -> None:
    """An estimator answers to the bit as before when it comes back from `pickle` or `joblib`."""
    file = io.BytesIO()
    joblib.dump(case.fitted, file)
    file.seek(0)
    copies = {"pickle": pickle.loads(pickle.dumps(case.fitted)), "joblib": joblib.load(file)}
    for method, answer in case.answers(case.fitted).items():
        for how, copied in copies.items():
            expect_same(getattr(copied, method)(case.X), answer, f"{case.name}.{method} after {how}")


def check_answers_do_not_depend_on_the_other_rows(case: Case) -> None:
    """A row is answered alike alone, in another order, and among all."""
    shuffled = np.random.default_rng(0).permutation(len(case.X))
    for method, answer in case.answers(case.fitted).items():
        ask = getattr(case.fitted, method)
        for rows, how in ((shuffled, "in another order"), (np.array([3]), "alone"), (shuffled[:5], "among fewer rows")):
            expect_near(ask(take(case.X, rows)), answer[rows], f"{case.name}.{method} of rows {how}")


def check_nothing_is_refused(case: Case) -> None:
    """An empty sequence is refused, in `fit` and in every answer."""
    nothing, no_y = take(case.X, np.arange(0)), take(case.y, np.arange(0))
    expect_error(f"{case.name}.fit without rows", case.fresh().fit, nothing, no_y)
    for method in case.answers(case.fitted):
        expect_error(f"{case.name}.{method} without rows", getattr(case.fitted, method), nothing)


def check_representations_of_a_fitted_estimator_are_made(case: Case) -> None:
    """`repr` and the HTML of notebooks work before and after `fit`."""
    for estimator in (case.fresh(), case.fitted):
        expect(case.name in repr(estimator), f"repr does not name {case.name}")
        expect(case.name in estimator._repr_html_(), f"the HTML does not name {case.name}")


# Transformers ---------------------------------------------------------------------------------------------------------


def check_transform_returns_finite_rows(case: Case) -> None:
    """`transform` returns one row of numbers, all finite, for each input."""
    embedding = case.fitted.transform(case.X)
    expect(isinstance(embedding, np.ndarray) and embedding.ndim == 2, f"{case.name}.transform returns no 2-D array")
    expect(len(embedding) == len(case.X), f"{case.name}.transform: {len(embedding)} rows for {len(case.X)}")
    expect(embedding.dtype.kind in "iuf", f"{case.name}.transform returns dtype {embedding.dtype}")
    expect(bool(np.isfinite(embedding).all()), f"{case.name}.transform returns NaN or infinity")


def check_fit_transform_is_fit_and_transform(case: Case) -> None:
    """`fit_transform` returns what `transform` returns after `fit`."""
    expect_near(case.fresh().fit_transform(case.X, case.y), case.fitted.transform(case.X), f"{case.name}.fit_transform")


def check_feature_names_fit_the_width(case: Case) -> None:
    """`get_feature_names_out` names each column, each differently."""
    names = case.fitted.get_feature_names_out()
    width = case.fitted.transform(take(case.X, np.arange(1))).shape[1]
    expect(len(names) == width, f"{case.name} has {len(names)} feature names for {width} columns")
    expect(len(set(names)) == width, f"{case.name} names two columns alike")
    expect(all(isinstance(name, str) for name in names), f"{case.name} has feature names that are no str")


def check_set_output_gives_a_frame(case: Case) -> None:
    """After ``set_output(transform="pandas")`` a frame comes, with the names of the features and X's index."""
    # A Series whose index does not begin at 0: what is numbered anew is noticed.
    column = series(list(case.X))
    if column is None:
        raise SkipTest("pandas is not installed")
    estimator = case.fresh().set_output(transform="pandas").fit(case.X, case.y)
    frame = estimator.transform(case.X)
    expect(hasattr(frame, "columns"), f"{case.name}.transform returns no frame after set_output")
    expect(list(frame.columns) == list(estimator.get_feature_names_out()), f"{case.name}: columns of other names")
    expect_near(frame.to_numpy(), case.fitted.transform(case.X), f"{case.name}.transform as a frame")
    if not isinstance(case.X, np.ndarray):
        expect(list(estimator.transform(column).index) == list(column.index), f"{case.name} loses the index of X")


def check_pipelines_are_cross_validated(case: Case) -> None:
    """In front of a classifier, `cross_val_score` and `GridSearchCV` take the rows as they are."""
    labels, pipeline, folds = _classified(case)
    scores = cross_val_score(pipeline, case.X, labels, cv=folds, error_score="raise")
    expect(bool(np.isfinite(scores).all()), f"{case.name} in a pipeline is scored NaN")
    grid = {"kneighborsclassifier__n_neighbors": [1, 3]}
    search = GridSearchCV(pipeline, grid, cv=folds, error_score="raise").fit(case.X, labels)
    expect(len(search.predict(case.X)) == len(case.X), f"{case.name} in a search predicts another number of rows")


def check_processes_agree(case: Case) -> None:
    """Folds fitted in two processes (joblib's loky) are scored as in one."""
    labels, pipeline, folds = _classified(case)
    alone, together = (
        cross_val_score(pipeline, case.X, labels, cv=folds, n_jobs=n_jobs, error_score="raise") for n_jobs in (1, 2)
    )
    expect_near(together, alone, f"{case.name}: scores with n_jobs=2")


def _classified(case: Case) -> tuple[np.ndarray, Pipeline, KFold]:
    """Return labels, a pipeline that learns them from what the estimator makes of X, and folds."""
    labels = np.arange(len(case.X)) // 2 % 2
    return (
        labels,
        make_pipeline(case.fresh(), KNeighborsClassifier(n_neighbors=1)),
        KFold(3, shuffle=True, random_state=0),
    )


COMMON_CHECKS: tuple[Check, ...] = (
    check_init_only_stores,
    check_parameters_survive_clone_and_set_params,
    check_unfitted_estimators_say_so,
    check_fit_returns_self_and_keeps_parameters,
    check_input_is_not_changed,
    check_global_random_states_are_left_alone,
    check_fits_with_one_random_state_agree,
    check_fit_starts_anew,
    check_pickled_estimators_answer_alike,
    check_answers_do_not_depend_on_the_other_rows,
    check_nothing_is_refused,
    check_representations_of_a_fitted_estimator_are_made,
)
TRANSFORMER_CHECKS: tuple[Check, ...] = (
    check_transform_returns_finite_rows,
    check_fit_transform_is_fit_and_transform,
    check_feature_names_fit_the_width,
    check_set_output_gives_a_frame,
)
PIPELINE_CHECKS: tuple[Check, ...] = (check_pipelines_are_cross_validated, check_processes_agree)
