"""The checks pass for honest estimators and fail, each, for one that breaks what it checks."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.linear_model import Ridge
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_mm._checks import check_captions, check_k, check_texts
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.testing import (
    check_image_estimator,
    check_retrieval_estimator,
    check_text_estimator,
    image_estimator_checks,
    retrieval_estimator_checks,
    text_estimator_checks,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"


# Honest estimators ------------------------------------------------------------------------------------------------


def read(source):
    """Decode a picture of any form to upright RGB."""
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    if isinstance(source, (str, Path, io.BytesIO)):
        source = Image.open(source)
    if isinstance(source, np.ndarray):
        source = Image.fromarray(source)
    if not isinstance(source, Image.Image):
        raise TypeError(f"{type(source).__name__} is no picture")
    return ImageOps.exif_transpose(source).convert("RGB")


class ColourGrid(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Mean colours of a grid, centred."""

    def __init__(self, n_cells=3):
        self.n_cells = n_cells

    def fit(self, X, y=None):
        self.mean_ = self._cells(X).mean(axis=0)
        self._n_features_out = len(self.mean_)
        return self

    def transform(self, X):
        check_is_fitted(self, "mean_")
        return self._cells(X) - self.mean_

    def _cells(self, X):
        if isinstance(X, (str, bytes, Image.Image)):
            raise TypeError("expected a sequence of pictures")
        if len(X) == 0:
            raise ValueError("no pictures")
        side = (self.n_cells, self.n_cells)
        cells = []
        for row, source in enumerate(X):
            try:
                cells.append(np.asarray(self.read(source).resize(side, Image.Resampling.BOX), dtype=np.float32))
            except (OSError, TypeError) as error:
                raise ValueError(f"row {row}: {error}") from error
        return np.stack(cells).reshape(len(cells), -1) / 255

    def read(self, source):
        return read(source)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "mean_")


class LetterCounts(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """How often each letter stands in a text, by the standard deviation of the training texts."""

    def __init__(self, letters=LETTERS):
        self.letters = letters

    def fit(self, texts, y=None):
        texts = check_texts(texts)
        if y is not None and len(y) != len(texts):
            raise ValueError("lengths differ")
        self.scale_ = self._counts(texts).std(axis=0) + 1
        self._n_features_out = len(self.letters)
        return self

    def transform(self, texts):
        check_is_fitted(self)
        return self._counts(check_texts(texts)) / self.scale_

    def _counts(self, texts):
        return np.array([[text.count(letter) for letter in self.letters] for text in texts], dtype=np.float32)


class LetterSearch(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Guesses, from features, the letters of the captions."""

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def fit(self, X, y, sample_weight=None, groups=None):
        captions = self._captions(y, X)
        X = validate_data(self, X)
        self.ridge_ = Ridge(alpha=self.alpha).fit(X[captions.image_index], self._letters(captions.texts))
        self._n_features_out = len(LETTERS)
        return self._set(X, sorted(set(captions.texts)))

    def partial_fit(self, X, y):
        return self.fit(X, y)

    def _captions(self, y, X):
        return check_captions(y, X)

    def _letters(self, texts):
        counts = np.array([[text.count(letter) for letter in LETTERS] for text in texts], dtype=np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)

    def _set(self, X, texts):
        self.images_, self.texts_ = self.transform(X), np.array(texts, dtype=object)
        return self

    def set_gallery(self, images, texts):
        return self._set(images, texts)

    def transform(self, X):
        check_is_fitted(self, "ridge_")
        return self.ridge_.predict(validate_data(self, X, reset=False)).astype(np.float32)

    def transform_text(self, texts):
        check_is_fitted(self, "ridge_")
        return self._letters(check_texts(texts))

    def decision_function(self, X):
        image = self.transform(X)
        return image @ self.transform_text(self.texts_).T

    def search_texts(self, X, k):
        return self._best(self.decision_function(X), k)

    def search_images(self, texts, k):
        return self._best(self.transform_text(texts) @ self.images_.T, k)

    def _best(self, scores, k):
        check_k(k, scores.shape[1])
        indices = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, indices, axis=1), indices

    def predict(self, X):
        best = self.search_texts(X, 1)[1][:, 0]
        return self.texts_[best]

    def score(self, X, y, sample_weight=None, groups=None):
        check_is_fitted(self, "ridge_")
        return float(RetrievalScorer()(self, X, y, sample_weight=sample_weight)["rsum"]) / 600

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


SUITES = {
    "image": (ColourGrid, image_estimator_checks, check_image_estimator),
    "text": (LetterCounts, text_estimator_checks, check_text_estimator),
    "retrieval": (LetterSearch, retrieval_estimator_checks, check_retrieval_estimator),
}
PROCESSES = "check_processes_agree"  # tried on the library's own estimators: workers start slowly


def _honest():
    for honest, checks, _ in SUITES.values():
        for name, check in checks(honest()):
            if name != PROCESSES:
                yield pytest.param(check, id=f"{honest.__name__}-{name}")


@pytest.mark.parametrize("check", list(_honest()))
def test_honest_estimators_pass(check):
    check()


# Estimators that break one thing each -----------------------------------------------------------------------------


def breaks(base, check, **methods):
    """Return a subclass that differs in some methods, and the check that has to notice."""
    name = f"{base.__name__}Without{''.join(methods)}{len(BROKEN_CLASSES)}"
    BROKEN_CLASSES[name] = type(name, (base,), {**methods, "__module__": __name__})
    globals()[name] = BROKEN_CLASSES[name]  # where pickle looks for it
    return pytest.param(BROKEN_CLASSES[name], check, id=f"{check}-{''.join(methods)}")


BROKEN_CLASSES = {}


def _init_that_converts(self, n_cells=3):
    self.n_cells = float(n_cells)


def _init_that_builds(self, n_cells=3):
    self.n_cells = n_cells
    self.network_ = object()


def _fit_none(self, X, y=None):
    ColourGrid.fit(self, X, y)


def _fit_that_sets_a_parameter(self, X, y=None):
    self.n_cells = self.n_cells + 0
    self.n_cells += 1
    return ColourGrid.fit(self, X, y)


def _fit_that_empties_y(self, X, y=None):
    ColourGrid.fit(self, X, y)
    y[0] = []
    return self


def _fit_that_seeds(self, X, y=None):
    torch.manual_seed(0)
    return ColourGrid.fit(self, X, y)


def _fit_that_draws(self, X, y=None):
    ColourGrid.fit(self, X, y)
    self.mean_ = self.mean_ + np.random.default_rng().normal(size=self.mean_.shape)
    return self


def _fit_that_remembers(self, X, y=None):
    before = getattr(self, "mean_", 0)
    ColourGrid.fit(self, X, y)
    self.mean_ = self.mean_ + before
    return self


def _state_that_forgets(self):
    return {**BaseEstimator.__getstate__(self), "mean_": np.zeros(27, dtype=np.float32)}


def _unfitted_transform(self, X):
    return self._cells(X)


def _transform_by_batch(self, X):
    cells = self._cells(X)
    return cells - cells.mean(axis=0)


def _cells_of_nothing(self, X):
    return ColourGrid._cells(self, X) if len(X) else np.zeros((0, 27))


def _transform_nan(self, X):
    return ColourGrid.transform(self, X) * np.nan


def _fit_transform_raw(self, X, y=None):
    self.fit(X, y)
    return self._cells(X)


def _names_too_few(self, input_features=None):
    return ClassNamePrefixFeaturesOutMixin.get_feature_names_out(self)[:-1]


class ColourGridWithoutFrames(ColourGrid, auto_wrap_output_keys=None):
    def set_output(self, *, transform=None):
        return self


def _repr_nothing(self):
    return ""


def _cells_of_lists(self, X):
    if not isinstance(X, list):
        raise TypeError("expected a list")
    return ColourGrid._cells(self, X)


def _fit_by_length(self, X, y=None):
    ColourGrid.fit(self, X, y)
    self.mean_ = self.mean_ + isinstance(X[0], Path)
    return self


def _read_strictly(self, source):
    image = read(source)
    if getattr(source, "mode", "RGB") not in ("RGB", "RGBA"):
        raise ValueError(f"mode {source.mode}")
    return image


def _read_as_stored(self, source):
    return Image.open(io.BytesIO(source)).convert("RGB") if isinstance(source, bytes) else read(source)


def _read_premultiplied(self, source):
    image = read(source)
    return ImageOps.invert(image) if getattr(source, "mode", "") == "RGBA" else image


def _cells_without_rows(self, X):
    try:
        return ColourGrid._cells(self, X)
    except ValueError as error:
        if "row" not in str(error):
            raise
        raise ValueError("a picture is broken") from error


def _cells_of_one(self, X):
    return ColourGrid._cells(self, [X] if isinstance(X, Image.Image) else X)


def _clone_that_forgets(self):
    return type(self)(n_cells=1)


def _fit_on_numbers_only(self, X, y=None):
    if isinstance(y, np.ndarray):
        raise TypeError("expected captions")
    return ColourGrid.fit(self, X, y)


# texts


def _texts_of_lists(self, texts):
    if not isinstance(texts, list):
        raise TypeError("expected a list")
    return LetterCounts.transform(self, texts)


def _texts_by_length(self, texts):
    counts = LetterCounts.transform(self, texts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return counts / counts.sum(axis=1, keepdims=True)


def _short_texts(self, texts):
    counts = LetterCounts.transform(self, texts)
    counts[[len(text) > 500 for text in texts]] = np.inf
    return counts


def _texts_of_anything(self, texts):
    return LetterCounts.transform(self, [str(text) for text in texts])


def _fit_any_length(self, texts, y=None):
    return LetterCounts.fit(self, texts)


# retrieval


def _captions_of_lists(self, y, X):
    return check_captions([own if isinstance(own, str) else list(own) for own in y] if isinstance(y, list) else None, X)


def _captions_unchecked(self, y, X):
    return check_captions([own if isinstance(own, str) and own.strip() else "nothing" for own in y], X)


def _captions_of_any_length(self, y, X):
    return check_captions([*y, *(["a red square"] * len(X))][: len(X)])


def _captions_or_none(self, y, X):
    return check_captions([["a red square"]] * len(X) if y is None else y, X)


def _fit_without_pairs(self, X, y, sample_weight=None, groups=None):
    if groups is not None:
        raise ValueError("groups are not known here")
    return LetterSearch.fit(self, X, y)


def _score_before_fit(self, X, y, sample_weight=None, groups=None):
    return 0.0


def _transform_text_wider(self, texts):
    return np.hstack([LetterSearch.transform_text(self, texts)] * 2)


def _transform_text_by_batch(self, texts):
    letters = LetterSearch.transform_text(self, texts)
    return letters - letters.mean(axis=0)


def _best_unsorted(self, scores, k):
    found, indices = LetterSearch._best(self, scores, k)
    return found[:, ::-1], indices[:, ::-1]


def _best_unchecked(self, scores, k):
    return LetterSearch._best(self, scores, min(max(k, 1), scores.shape[1]))


def _predict_numbers(self, X):
    return np.arange(len(X))


def _set_gallery_not(self, images, texts):
    return self


def _partial_fit_none(self, X, y):
    self.fit(X, y)


def _score_in_percent(self, X, y, sample_weight=None, groups=None):
    return 101 + LetterSearch.score(self, X, y)


def _fit_of_lists_only(self, X, y, sample_weight=None, groups=None):
    if not isinstance(y, list) or len(y) < 18:
        raise ValueError("expected all of them")
    return LetterSearch.fit(self, X, y)


def _score_without_weight(self, X, y):
    return LetterSearch.score(self, X, y)


BROKEN = [
    breaks(ColourGrid, "check_init_only_stores", __init__=_init_that_converts),
    breaks(ColourGrid, "check_init_only_stores", __init__=_init_that_builds),
    breaks(ColourGrid, "check_parameters_survive_clone_and_set_params", __sklearn_clone__=_clone_that_forgets),
    breaks(ColourGrid, "check_fit_returns_self_and_keeps_parameters", fit=_fit_none),
    breaks(ColourGrid, "check_fit_returns_self_and_keeps_parameters", fit=_fit_that_sets_a_parameter),
    breaks(ColourGrid, "check_unfitted_estimators_say_so", transform=_unfitted_transform),
    breaks(ColourGrid, "check_input_is_not_changed", fit=_fit_that_empties_y),
    breaks(ColourGrid, "check_global_random_states_are_left_alone", fit=_fit_that_seeds),
    breaks(ColourGrid, "check_fits_with_one_random_state_agree", fit=_fit_that_draws),
    breaks(ColourGrid, "check_fit_starts_anew", fit=_fit_that_remembers),
    breaks(ColourGrid, "check_pickled_estimators_answer_alike", __getstate__=_state_that_forgets),
    breaks(ColourGrid, "check_answers_do_not_depend_on_the_other_rows", transform=_transform_by_batch),
    breaks(ColourGrid, "check_nothing_is_refused", _cells=_cells_of_nothing),
    breaks(ColourGrid, "check_representations_of_a_fitted_estimator_are_made", __repr__=_repr_nothing),
    breaks(ColourGrid, "check_transform_returns_finite_rows", transform=_transform_nan),
    breaks(ColourGrid, "check_fit_transform_is_fit_and_transform", fit_transform=_fit_transform_raw),
    breaks(ColourGrid, "check_feature_names_fit_the_width", get_feature_names_out=_names_too_few),
    breaks(ColourGrid, "check_pipelines_are_cross_validated", fit=_fit_on_numbers_only),
    breaks(ColourGrid, "check_every_form_of_pictures_is_answered_alike", _cells=_cells_of_lists),
    breaks(ColourGrid, "check_every_form_of_pictures_is_fitted_alike", fit=_fit_by_length),
    breaks(ColourGrid, "check_pictures_of_every_mode_and_size_are_embedded", read=_read_strictly),
    breaks(ColourGrid, "check_pictures_are_turned_upright", read=_read_as_stored),
    breaks(ColourGrid, "check_alpha_of_full_strength_changes_nothing", read=_read_premultiplied),
    breaks(ColourGrid, "check_bad_pictures_are_named_by_their_row", _cells=_cells_without_rows),
    breaks(ColourGrid, "check_one_picture_is_no_sequence", _cells=_cells_of_one),
    breaks(LetterCounts, "check_every_form_of_texts_is_answered_alike", transform=_texts_of_lists),
    breaks(LetterCounts, "check_texts_of_unknown_words_are_embedded", transform=_texts_by_length),
    breaks(LetterCounts, "check_long_texts_are_embedded", transform=_short_texts),
    breaks(LetterCounts, "check_bad_texts_are_named_by_their_row", transform=_texts_of_anything),
    breaks(LetterCounts, "check_one_text_is_no_sequence", transform=_texts_of_anything),
    breaks(LetterCounts, "check_lengths_of_texts_and_instances_must_agree", fit=_fit_any_length),
    breaks(LetterSearch, "check_every_form_of_captions_is_fitted_alike", _captions=_captions_of_lists),
    breaks(LetterSearch, "check_bad_captions_are_named_by_their_row", _captions=_captions_unchecked),
    breaks(LetterSearch, "check_lengths_of_images_and_captions_must_agree", _captions=_captions_of_any_length),
    breaks(LetterSearch, "check_captions_are_required", _captions=_captions_or_none),
    breaks(LetterSearch, "check_pairs_are_fitted_with_groups", fit=_fit_without_pairs),
    breaks(LetterSearch, "check_unfitted_searches_say_so", score=_score_before_fit),
    breaks(LetterSearch, "check_images_and_texts_share_a_space", transform_text=_transform_text_wider),
    breaks(LetterSearch, "check_texts_do_not_depend_on_the_other_texts", transform_text=_transform_text_by_batch),
    breaks(LetterSearch, "check_searches_are_sorted", _best=_best_unsorted),
    breaks(LetterSearch, "check_k_must_fit_the_gallery", _best=_best_unchecked),
    breaks(LetterSearch, "check_predictions_are_captions_of_the_gallery", predict=_predict_numbers),
    breaks(LetterSearch, "check_galleries_are_replaced", set_gallery=_set_gallery_not),
    breaks(LetterSearch, "check_partial_fit_continues", partial_fit=_partial_fit_none),
    breaks(LetterSearch, "check_score_is_a_number_between_0_and_1", score=_score_in_percent),
    breaks(LetterSearch, "check_model_selection_takes_images_and_captions", fit=_fit_of_lists_only),
    breaks(LetterSearch, "check_metadata_is_routed", score=_score_without_weight),
    pytest.param(ColourGridWithoutFrames, "check_set_output_gives_a_frame", id="check_set_output_gives_a_frame"),
]


def _checks_of(estimator):
    (checks,) = (checks for honest, checks, _ in SUITES.values() if isinstance(estimator, honest))
    return dict(checks(estimator))


@pytest.mark.parametrize(("broken", "check"), BROKEN)
def test_each_check_notices_what_it_is_for(broken, check):
    with pytest.raises((AssertionError, TypeError, ValueError)):  # it may also let the estimator's own error through
        _checks_of(broken())[check]()


def test_every_check_is_shown_to_fail_for_something():
    all_checks = {name for honest, checks, _ in SUITES.values() for name, _ in checks(honest())}
    assert {param.values[1] for param in BROKEN} == all_checks - {PROCESSES}


# The suites as a whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(SUITES))
def test_running_all_passes_for_honest_estimators(kind, monkeypatch):
    honest, _, run_all = SUITES[kind]
    monkeypatch.setattr("sklearn_mm.testing._suites.PIPELINE_CHECKS", ())
    if kind == "retrieval":
        from sklearn_mm.testing._retrieval import RETRIEVAL_CHECKS

        quick = tuple(check for check in RETRIEVAL_CHECKS if check.__name__ != PROCESSES)
        monkeypatch.setattr("sklearn_mm.testing._suites.RETRIEVAL_CHECKS", quick)
    run_all(honest())


@pytest.mark.parametrize("kind", list(SUITES))
def test_running_all_stops_at_the_first_failure_and_names_the_check(kind):
    _, _, run_all = SUITES[kind]
    with pytest.raises(AssertionError, match="before fit") as raised:
        run_all(FunctionTransformer())
    assert raised.value.__notes__ == ["check_unfitted_estimators_say_so"]


def test_names_are_unique_and_every_check_says_what_it_checks():
    for honest, checks, _ in SUITES.values():
        listed = list(checks(honest()))
        assert len({name for name, _ in listed}) == len(listed)
        assert all(check.func.__doc__ for _, check in listed)


def test_estimators_are_checked_on_data_of_ones_own():
    images = [Image.new("RGB", (8, 8), (10 * row, 0, 0)) for row in range(12)]
    checks = dict(image_estimator_checks(ColourGrid(), images))
    checks["check_every_form_of_pictures_is_answered_alike"]()
    texts = [f"{'a' * row} b" for row in range(12)]
    dict(text_estimator_checks(LetterCounts(), texts))["check_every_form_of_texts_is_answered_alike"]()
    features = np.random.default_rng(0).normal(size=(12, 4))
    checks = dict(retrieval_estimator_checks(LetterSearch(), features, [[text] for text in texts]))
    checks["check_searches_are_sorted"]()
    with pytest.raises(ValueError, match="both images and captions"):
        next(retrieval_estimator_checks(LetterSearch(), features))


def test_the_estimator_given_is_never_fitted():
    for honest, checks, _ in SUITES.values():
        estimator = honest()
        dict(checks(estimator))["check_transform_returns_finite_rows"]()
        assert vars(estimator) == honest().get_params()
