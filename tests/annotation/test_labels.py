"""Labels as they come out of files and frames: joined in one str, missing, or not there at all."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold, cross_val_score

from sklearn_mm._joined import joined_by, split_joined, split_printed
from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.annotation._labels import read_labels
from sklearn_mm.exceptions import LabelWarning
from sklearn_mm.features import TagVectorizer
from sklearn_mm.metrics import AnnotationScorer, annotation_report
from sklearn_mm.persistence import load, save

LISTS = [["bird", "cloud"], ["cloud", "sea"], ["bird"], [], ["sea", "bird", "cloud"]] * 4
FAST = {"hidden_layer_sizes": (8,), "max_epochs": 2, "batch_size": 8, "random_state": 0, "n_folds": None}
FAST |= {"members": None}
NAMES = ["bird", "cloud", "sea"]
TRUTH = np.array([[name in own for name in NAMES] for own in LISTS]).astype(float)
X = (TRUTH + np.random.default_rng(0).normal(0, 0.1, TRUTH.shape)).astype(np.float32)
JOINED = {
    "comma": (",", [", ".join(own) for own in LISTS]),
    "comma alone": (",", [",".join(own) for own in LISTS]),
    "semicolon": (";", ["; ".join(own) for own in LISTS]),
    "bar": ("|", ["|".join(own) for own in LISTS]),
    "white space": (" ", [" ".join(own) for own in LISTS]),
    "printed lists": (",", [str(own) for own in LISTS]),
    "printed tuples": (",", [str(tuple(own)) if own else "" for own in LISTS]),
    "printed arrays": (",", [str(np.array(own, dtype=str)) for own in LISTS]),
    "json": (",", [str(own).replace("'", '"') for own in LISTS]),
}


@pytest.mark.parametrize("form", JOINED)
def test_labels_in_one_str_are_told_and_split(form):
    separator, texts = JOINED[form]
    assert [split_joined(text, separator) for text in texts] == LISTS
    with pytest.warns(LabelWarning, match=f"look like several in one str.* set label_separator='\\{separator}'"):
        MultiLabelAnnotator(**FAST).fit(X, texts)
    expected = MultiLabelAnnotator(**FAST).fit(X, LISTS)
    for y in (texts, np.array(texts), pd.Series(texts), pd.DataFrame({"labels": texts})):
        annotator = MultiLabelAnnotator(**FAST, label_separator=separator).fit(X, y)
        np.testing.assert_array_equal(annotator.classes_, NAMES)
        np.testing.assert_array_equal(annotator.decision_function(X), expected.decision_function(X))
        assert annotator.score(X, y) == expected.score(X, LISTS)
        assert AnnotationScorer()(annotator, X, y) == AnnotationScorer()(expected, X, LISTS)
    assert [list(own) for own in annotator.predict(X)] == [list(own) for own in expected.predict(X)]


@pytest.mark.parametrize(
    "names",
    [
        ["traffic light", "hot dog", "dog", "teddy bear", "bear", "baseball bat", "baseball glove", "wine glass"],
        ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark"],
        ["Black footed Albatross", "Laysan Albatross", "Sooty Albatross"],
        ["red square", "red dot", "blue square", "blue dot"],
        ["bird", "cloud"],
        [],
    ],
    ids=str,
)
def test_names_of_several_words_are_taken_for_single_labels(names):
    assert joined_by(names) is None


def test_a_printed_list_is_read_as_it_was_and_other_brackets_stay():
    assert split_printed(str(["it's", 'a "b"', "c, d", "é"])) == ["it's", 'a "b"', "c, d", "é"]
    assert split_printed("[]") == []
    for text in ("(sea)", "[1, 2]", "bird", "", "[", "['a' + 'b']", "['a'"):
        assert split_printed(text) is None
    assert split_joined("(sea), sky", ",") == ["(sea)", "sky"]


def test_a_missing_row_of_joined_labels_is_named():
    with pytest.raises(ValueError, match="row 1 has no labels: nan; leave it out .* or make it ''"):
        MultiLabelAnnotator(**FAST, label_separator=",").fit(X[:3], ["a", np.nan, "b"])


def test_what_is_no_str_passes_the_separator_by():
    plain = MultiLabelAnnotator(**FAST).fit(X, LISTS)
    same = MultiLabelAnnotator(**FAST, label_separator=",").fit(X, LISTS)
    np.testing.assert_array_equal(same.decision_function(X), plain.decision_function(X))
    assert MultiLabelAnnotator(**FAST, label_separator=",").fit(X, TRUTH).score(X, TRUTH) >= 0


def test_joined_labels_are_cross_validated_and_saved(tmp_path):
    _, texts = JOINED["comma"]
    annotator = MultiLabelAnnotator(**FAST, label_separator=",")
    for scoring in (None, lambda *args: AnnotationScorer()(*args)["O-F1"]):
        assert np.isfinite(cross_val_score(annotator, X, np.array(texts), cv=KFold(2), scoring=scoring)).all()
    save(annotator.fit(X, texts), tmp_path / "model")
    for opened in (load(tmp_path / "model"), pickle.loads(pickle.dumps(annotator))):
        assert opened.label_separator == ","
        assert opened.score(X, texts) == annotator.score(X, texts)


def test_counts_of_joined_labels_are_warned_of():
    with pytest.warns(LabelWarning, match=r"give lists, as \[labels.split\(','\) for labels in y\]"):
        LabelCountPredictor(max_epochs=1, random_state=0).fit(X, JOINED["comma"][1])


def test_tags_that_end_in_separators_are_warned_of_and_printed_lists_read():
    with pytest.warns(LabelWarning, match="2 of 4 tags end in ',', 'blue,' for one; set separator=','"):
        TagVectorizer().fit(["sea, blue, sky", "dog"])
    assert TagVectorizer().fit(["['sea', 'blue sky']", "['sea']"]).tags_ == ["sea", "blue sky"]


def pandas_frame(dtype):
    return lambda table: pd.DataFrame({name: pd.array(column, dtype) for name, column in table.items()})


FRAMES = {
    "Int64": pandas_frame("Int64"),
    "boolean": pandas_frame("boolean"),
    "Float64": pandas_frame("Float64"),
    "object": pandas_frame("object"),
    "polars": lambda table: pytest.importorskip("polars").DataFrame(table),
    "array of objects": lambda table: np.array(list(table.values()), dtype=object).T,
    "lists": lambda table: np.array(list(table.values()), dtype=object).T.tolist(),
}


@pytest.mark.parametrize("form", FRAMES)
def test_missing_marks_of_a_frame_are_not_known(form):
    hidden = TRUTH.copy()
    hidden[1, 0] = hidden[4, 2] = np.nan
    table = {
        name: [None if np.isnan(mark) else bool(mark) if form == "boolean" else int(mark) for mark in column]
        for name, column in zip(NAMES, hidden.T, strict=True)
    }
    Y = FRAMES[form](table)
    np.testing.assert_array_equal(read_labels(Y, len(X)).matrix.toarray(), hidden)
    expected = MultiLabelAnnotator(**FAST).fit(X, hidden)
    annotator = MultiLabelAnnotator(**FAST).fit(X, Y)
    np.testing.assert_array_equal(annotator.decision_function(X), expected.decision_function(X))
    assert annotator.predict(X).dtype == np.float64
    assert annotator.score(X, Y) == expected.score(X, hidden)
    assert AnnotationScorer()(annotator, X, Y) == AnnotationScorer()(expected, X, hidden)
    scores = expected.decision_function(X)
    assert annotation_report(Y, scores, 1) == annotation_report(hidden, scores, 1)


@pytest.mark.parametrize("form", [list, np.array, pd.Series, lambda y: pd.DataFrame({"label": y})], ids=range(4))
@pytest.mark.parametrize("value", [None, np.nan, pd.NA], ids=repr)
def test_a_missing_label_of_a_row_is_named_and_not_learnt_as_a_label(form, value):
    y = np.array(["bird", "sea", value, "bird"], dtype=object)
    with pytest.raises(ValueError, match="NaN or None in 1 rows, the first is row 2; leave them out"):
        MultiLabelAnnotator(**FAST).fit(X[:4], form(y))


EMPTY = {
    "lists": [[]] * 5,
    "indicator": np.zeros((5, 3)),
    "nothing known": np.full((5, 3), np.nan),
}


@pytest.mark.parametrize("form", EMPTY)
def test_a_fold_without_labels_scores_as_the_scorer_says(form):
    annotator = MultiLabelAnnotator(**{**FAST, "max_epochs": 30, "learning_rate": 0.02}).fit(X, LISTS)
    for rows in (slice(0, 5), [3] * 5):  # with labels predicted, and without
        score = annotator.score(X[rows], EMPTY[form])
        assert score == 0
        assert AnnotationScorer()(annotator, X[rows], EMPTY[form])["O-F1"] == score


def test_a_count_is_scored_where_no_image_has_a_label():
    predictor = LabelCountPredictor(max_epochs=2, random_state=0).fit(X, LISTS)
    assert predictor.score(X, [[]] * len(X)) == predictor.score(X, np.zeros(len(X)))


@pytest.mark.slow
def test_a_rare_label_of_perfect_scores_is_given_by_thresholds_of_labels():
    def images(n_images, n_rare, seed):
        rng = np.random.default_rng(seed)
        truth = (rng.random((n_images, 6)) < [0.5, 0.4, 0.3, 0.3, 0.2, 0]).astype(int)
        truth[:n_rare, 5] = 1
        features = truth + rng.normal(0, 0.5, truth.shape)
        features[:, 5] = 6 * truth[:, 5] + rng.normal(0, 0.1, n_images)
        return features.astype(np.float32), truth

    test, truth = images(150, 3, 1)
    annotator = MultiLabelAnnotator(batch_size=32, hidden_layer_sizes=(32,), max_epochs=20, random_state=0)
    annotator.fit(*images(400, 8, 0)).set_params(label_count="label-thresholds")
    assert set(np.argsort(-annotator.decision_function(test)[:, 5])[:3]) == {0, 1, 2}
    np.testing.assert_array_equal(annotator.predict(test)[:, 5], truth[:, 5])
