"""Checks of estimators that search pictures by sentences and sentences by pictures."""

import warnings
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import has_fit_parameter

from sklearn_mm.exceptions import MergedRowsWarning
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.testing._case import Case, Check, expect, expect_error, expect_near, expect_unfitted_error, noted, take
from sklearn_mm.testing._media import as_objects, series

__all__ = ["RETRIEVAL_CHECKS"]

_BAD_ROW = 7


def _texts(case: Case) -> list[str]:
    return [text for own in case.y for text in own]


def _folds() -> KFold:
    return KFold(3, shuffle=True, random_state=0)


# Captions -------------------------------------------------------------------------------------------------------------


def check_every_form_of_captions_is_fitted_alike(case: Case) -> None:
    """Captions may be one str or a list, tuple or array of str for each image, in lists, object arrays and Series."""
    ragged: dict[str, Any] = {
        "a list of tuples": [tuple(own) for own in case.y],
        "a list of arrays": [np.array(own) for own in case.y],
        "an object array of lists": as_objects(case.y),
        "a pandas Series of lists": series(case.y),
        "a str where there is one": [own[0] if len(own) == 1 else own for own in case.y],
    }
    first = [own[0] for own in case.y]
    single: dict[str, Any] = {
        "a list of str": first,
        "a str array": np.array(first),
        "an object array of str": as_objects(first),
        "a pandas Series of str": series(first),
    }
    expected_single = case.fresh().fit(case.X, [[text] for text in first]).transform(case.X)
    for expected, forms in ((case.fitted.transform(case.X), ragged), (expected_single, single)):
        for form, y in forms.items():
            if y is not None:
                with noted(f"fit on captions as {form}"):
                    answer = case.fresh().fit(case.X, y).transform(case.X)
                expect_near(answer, expected, f"{case.name} fitted on captions as {form}")


def check_bad_captions_are_named_by_their_row(case: Case) -> None:
    """An image without captions, an empty caption, and what is no str are refused with their row."""
    bad: dict[str, Any] = {
        "no caption": [],
        "an empty caption": "",
        "a caption of blanks": ["a red square", "  "],
        "None": None,
        "a number": 3,
        "a number among captions": ["a red square", 3],
        "bytes": b"a red square",
    }
    for what, caption in bad.items():
        y = list(case.y)
        y[_BAD_ROW] = caption
        expect_error(f"{case.name}.fit with {what}", case.fresh().fit, case.X, y, row=_BAD_ROW)


def check_lengths_of_images_and_captions_must_agree(case: Case) -> None:
    """`fit` and `score` refuse captions for more or fewer images than there are."""
    for what, y in (("fewer", case.y[:-1]), ("more", [*case.y, ["a red square"]])):
        expect_error(f"{case.name}.fit with captions of {what} images", case.fresh().fit, case.X, y)
        expect_error(f"{case.name}.score with captions of {what} images", case.fitted.score, case.X, y)


def check_captions_are_required(case: Case) -> None:
    """`fit` refuses y=None and one str for all."""
    expect_error(f"{case.name}.fit without captions", case.fresh().fit, case.X, None)
    expect_error(f"{case.name}.fit with one str", case.fresh().fit, case.X, "a red square")


def check_pairs_are_fitted_with_groups(case: Case) -> None:
    """A row for each pair of an image and a caption is accepted, with the image's number as its group."""
    if not has_fit_parameter(case.estimator, "groups"):
        return
    rows = np.repeat(np.arange(len(case.y)), [len(own) for own in case.y])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MergedRowsWarning)  # it may say that rows were put together
        fitted = case.fresh().fit(take(case.X, rows), _texts(case), groups=rows)
    expect(len(fitted.transform(case.X)) == len(case.X), f"{case.name} fitted on pairs: another number of rows")


# Search ---------------------------------------------------------------------------------------------------------------


def check_unfitted_searches_say_so(case: Case) -> None:
    """Every search, embedding and score raises `NotFittedError` before `fit`."""
    calls: dict[str, tuple[Any, ...]] = {
        "transform_text": (_texts(case),),
        "search_images": (_texts(case), 1),
        "search_texts": (case.X, 1),
        "score": (case.X, case.y),
    }
    for method, arguments in calls.items():
        ask = getattr(case.fresh(), method)
        expect_unfitted_error(f"{case.name}.{method} before fit", ask, *arguments)


def check_images_and_texts_share_a_space(case: Case) -> None:
    """`transform` and `transform_text` give finite rows of the same width and type."""
    image, text = case.fitted.transform(case.X), case.fitted.transform_text(_texts(case))
    expect(image.shape[1] == text.shape[1], f"{case.name}: images have {image.shape[1]} columns, texts {text.shape[1]}")
    expect(image.dtype == text.dtype, f"{case.name}: images are {image.dtype}, texts {text.dtype}")
    expect(len(text) == len(_texts(case)), f"{case.name}.transform_text: another number of rows")
    expect(bool(np.isfinite(text).all()), f"{case.name}.transform_text is not finite")


def check_texts_do_not_depend_on_the_other_texts(case: Case) -> None:
    """A text is embedded alike alone, in another order, and among all."""
    texts = _texts(case)
    expected = case.fitted.transform_text(texts)
    shuffled = np.random.default_rng(0).permutation(len(texts))
    for rows, how in ((shuffled, "in another order"), (np.array([3]), "alone")):
        expect_near(
            case.fitted.transform_text(take(texts, rows)), expected[rows], f"{case.name}.transform_text of rows {how}"
        )


def check_searches_are_sorted(case: Case) -> None:
    """Searches return (scores, indices) of shape (n_queries, k), best first, each item at most once."""
    texts = _texts(case)
    for method, queries in (("search_images", texts), ("search_texts", case.X)):
        search = getattr(case.fitted, method)
        scores, indices = search(queries, 5)
        what = f"{case.name}.{method}"
        expect(scores.shape == indices.shape == (len(queries), 5), f"{what}: shapes {scores.shape}, {indices.shape}")
        expect(indices.dtype.kind == "i" and bool((indices >= 0).all()), f"{what} returns no indices")
        expect(bool((np.diff(scores, axis=1) <= 0).all()), f"{what} is not sorted from the best on")
        expect(all(len(set(row)) == 5 for row in indices.tolist()), f"{what} finds an item twice")
        expect_near(search(queries, 2)[0], scores[:, :2], f"{what}: scores for a smaller k")
    expect(int(case.fitted.search_images(texts, 5)[1].max()) < len(case.X), f"{case.name}: an index beyond the images")


def check_k_must_fit_the_gallery(case: Case) -> None:
    """A k of 0, and one larger than the gallery, are refused."""
    for k in (0, -1, len(_texts(case)) + 100):
        expect_error(f"{case.name}.search_images, k={k}", case.fitted.search_images, ["a red square"], k)
        expect_error(f"{case.name}.search_texts, k={k}", case.fitted.search_texts, case.X, k)


def check_predictions_are_captions_of_the_gallery(case: Case) -> None:
    """`predict` returns, for each image, the best scored of the captions it was fitted on."""
    predicted, scores = case.fitted.predict(case.X), case.fitted.decision_function(case.X)
    expect(len(predicted) == len(case.X), f"{case.name}.predict: another number of rows")
    expect(set(predicted) <= set(_texts(case)), f"{case.name}.predict returns what is no caption of the gallery")
    expect(len(scores) == len(case.X), f"{case.name}.decision_function: another number of rows")
    best = case.fitted.search_texts(case.X, 1)[0][:, 0]
    expect_near(scores.max(axis=1), best, f"{case.name}: the best of decision_function against search_texts")


def check_galleries_are_replaced(case: Case) -> None:
    """After `set_gallery` the new items are searched, and those alone."""
    if not hasattr(case.estimator, "set_gallery"):
        return
    fitted = case.fresh().fit(case.X, case.y)
    texts = [case.y[5][0], case.y[0][0]]
    fitted.set_gallery(images=take(case.X, np.arange(4)), texts=texts)
    expect(set(fitted.predict(case.X)) <= set(texts), f"{case.name}.predict after set_gallery")
    expect(int(fitted.search_images(["a red square"], 4)[1].max()) == 3, f"{case.name}.search_images after set_gallery")
    expect_error(f"{case.name}.search_images beyond set_gallery", fitted.search_images, ["a red square"], 5)


def check_partial_fit_continues(case: Case) -> None:
    """`partial_fit` returns the estimator, whether fitted or not, and keeps the space as wide as it is."""
    if not hasattr(case.estimator, "partial_fit"):
        return
    # The second call has fewer rows, and may not build the space anew.
    estimator = case.fresh()
    for X, y in ((case.X, case.y), (take(case.X, np.arange(6)), case.y[:6])):
        expect(estimator.partial_fit(X, y) is estimator, f"{case.name}.partial_fit does not return self")
    width = case.fitted.transform(case.X).shape[1]
    expect(estimator.transform(case.X).shape[1] == width, f"{case.name}.partial_fit changes the width of the space")


# scikit-learn's tools -------------------------------------------------------------------------------------------------


def check_score_is_a_number_between_0_and_1(case: Case) -> None:
    """`score` returns a float in [0, 1], with and without `sample_weight` and `groups`."""
    weight, groups = np.ones(len(case.X)), np.arange(len(case.X))
    plain = case.fitted.score(case.X, case.y)
    expect(isinstance(plain, float) and 0 <= plain <= 1, f"{case.name}.score returns {plain!r}")
    weighted = case.fitted.score(case.X, case.y, sample_weight=weight)
    expect_near(weighted, plain, f"{case.name}.score with equal weights")
    expect_near(case.fitted.score(case.X, case.y, groups=groups), plain, f"{case.name}.score with groups")


def check_model_selection_takes_images_and_captions(case: Case) -> None:
    """`train_test_split`, `cross_val_score`, `cross_val_predict` and a search work on one entry per image."""
    X_train, X_test, y_train, y_test = train_test_split(case.X, case.y, test_size=6, random_state=0)
    score = case.fresh().fit(X_train, y_train).score(X_test, y_test)
    expect(np.isfinite(score), f"{case.name} is scored NaN after train_test_split")
    scores = cross_val_score(case.fresh(), case.X, case.y, cv=_folds(), error_score="raise")
    expect(bool(np.isfinite(scores).all()), f"{case.name} is scored NaN by cross_val_score")
    predicted = cross_val_predict(case.fresh(), case.X, case.y, cv=_folds())
    expect(set(predicted) <= set(_texts(case)), f"{case.name}: cross_val_predict predicts no captions")
    search = GridSearchCV(
        make_pipeline(FunctionTransformer(), case.fresh()),
        # A parameter that changes nothing: what is checked is the way of X, y and the score through a search.
        {"functiontransformer__check_inverse": [False, True]},
        scoring=RetrievalScorer(k=(1, 5)),
        refit="t2i_hit@5",
        cv=_folds(),
        error_score="raise",
    ).fit(case.X, case.y)
    expect("mean_test_i2t_hit@1" in search.cv_results_, f"{case.name} is not scored by RetrievalScorer")
    expect(len(search.predict(case.X)) == len(case.X), f"{case.name} in a search predicts another number of rows")


def check_metadata_is_routed(case: Case) -> None:
    """With metadata routing, `groups` and `sample_weight` reach `fit` and `score` inside a pipeline; without, neither
    is needed.
    """
    # Groups of two, so that GroupKFold has something to keep together.
    metadata = {"groups": np.arange(len(case.X)) // 2, "sample_weight": np.ones(len(case.X))}
    folds = GroupKFold(3)
    without = cross_validate(case.fresh(), case.X, case.y, cv=_folds(), error_score="raise")
    expect(bool(np.isfinite(without["test_score"]).all()), f"{case.name} is scored NaN without routing")
    with config_context(enable_metadata_routing=True):
        ranker = case.fresh()
        wanted = {name: True for name in metadata if has_fit_parameter(ranker, name)}
        ranker.set_fit_request(**wanted).set_score_request(groups=True, sample_weight=True)
        pipeline = make_pipeline(FunctionTransformer(), ranker)
        routed = cross_validate(pipeline, case.X, case.y, cv=folds, params=metadata, error_score="raise")
        # With routing on, Pipeline.score passes sample_weight=None even if nobody asked for it: a `score` without it
        # fails.
        plain = make_pipeline(FunctionTransformer(), case.fresh()).fit(case.X, case.y).score(case.X, case.y)
    expect(bool(np.isfinite(routed["test_score"]).all()), f"{case.name} is scored NaN with routing")
    expect(np.isfinite(plain), f"{case.name} in a pipeline is scored NaN with routing on and nothing requested")


def check_processes_agree(case: Case) -> None:
    """Folds fitted in two processes (joblib's loky) are scored as in one."""
    alone, together = (
        cross_val_score(case.fresh(), case.X, case.y, cv=_folds(), n_jobs=n_jobs, error_score="raise")
        for n_jobs in (1, 2)
    )
    expect_near(together, alone, f"{case.name}: scores with n_jobs=2")


RETRIEVAL_CHECKS: tuple[Check, ...] = (
    check_captions_are_required,
    check_bad_captions_are_named_by_their_row,
    check_lengths_of_images_and_captions_must_agree,
    check_every_form_of_captions_is_fitted_alike,
    check_pairs_are_fitted_with_groups,
    check_unfitted_searches_say_so,
    check_images_and_texts_share_a_space,
    check_texts_do_not_depend_on_the_other_texts,
    check_searches_are_sorted,
    check_k_must_fit_the_gallery,
    check_predictions_are_captions_of_the_gallery,
    check_galleries_are_replaced,
    check_partial_fit_continues,
    check_score_is_a_number_between_0_and_1,
    check_model_selection_takes_images_and_captions,
    check_metadata_is_routed,
    check_processes_agree,
)
