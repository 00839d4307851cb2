"""Which labels are probably wrong or missing."""

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mm.annotation import LabelIssues, MultiLabelAnnotator, label_issues

NAMES = np.array(["bird", "cloud", "dog", "sea"])
WRONG, MISSING = [(3, 0), (40, 2), (77, 1), (90, 0)], [(5, 3), (41, 0), (60, 1), (99, 2)]


def annotator(**parameters):
    settings = {"hidden_layer_sizes": (), "max_epochs": 4, "batch_size": 16, "dropout": 0.0, "random_state": 0}
    settings |= {"n_folds": None, "label_count": 1, "learning_rate": 0.1, "members": None}
    return MultiLabelAnnotator(**{**settings, **parameters})


@pytest.fixture(scope="module")
def pictures():
    """Features, and an indicator with eight errors in it."""
    rng = np.random.default_rng(0)
    truth = (rng.random((150, 4)) < 0.35).astype(int)
    for places, value in ((WRONG, 0), (MISSING, 1)):
        truth[tuple(np.transpose(places))] = value
    X = (truth + rng.normal(0, 0.1, truth.shape)).astype(np.float32)
    given = truth.copy()
    for row, column in WRONG + MISSING:
        given[row, column] = 1 - given[row, column]
    return X, given


def listed(given):
    return [NAMES[np.flatnonzero(row)].tolist() for row in given]


def found(issues):
    return {
        (int(row), str(label), str(kind))
        for row, label, kind in zip(issues.row, issues.label, issues.kind, strict=True)
    }


EXPECTED = {(row, NAMES[column], "wrong") for row, column in WRONG} | {
    (row, NAMES[column], "missing") for row, column in MISSING
}


@pytest.fixture(scope="module")
def issues(pictures):
    X, given = pictures
    return label_issues(annotator(), X, listed(given), cv=3)


def test_errors_come_first(issues):
    assert found(issues[:8]) == EXPECTED
    assert (np.diff(issues.score) <= 0).all()
    assert issues.score[0] > 0.5
    assert ((issues.score >= 0.05) & (issues.score <= 1)).all()  # what is listed is likelier than at first


def test_table_says_what_the_image_has(issues, pictures):
    frame = issues.to_frame()
    assert list(frame.columns) == ["row", "label", "kind", "score", "given"]
    for row, label, kind, given in zip(frame["row"], frame["label"], frame["kind"], frame["given"], strict=True):
        assert given == listed(pictures[1])[row]
        assert (label in given) == (kind == "wrong")
    text = str(issues[:1])
    assert issues.label[0] in text
    assert issues.kind[0] in text
    assert isinstance(issues[:3], LabelIssues)
    assert len(issues[:3]) == 3


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array, lambda given: pd.DataFrame(given, columns=NAMES)])
def test_any_form_of_labels_gives_the_same(make, pictures, issues):
    X, given = pictures
    own = label_issues(annotator(), X, make(given), cv=3)
    names = own.label if own.label.dtype.kind == "O" else NAMES[own.label]
    np.testing.assert_array_equal(own.row[:8], issues.row[:8])
    np.testing.assert_array_equal(names[:8], issues.label[:8])


def test_pipeline_with_groups(pictures):
    X, given = pictures
    pipeline = make_pipeline(StandardScaler(), annotator())
    issues = label_issues(pipeline, X, listed(given), cv=3, groups=np.arange(150) // 2)
    assert len(found(issues[:8]) & EXPECTED) >= 7  # folds are others than without groups
    assert not hasattr(pipeline[-1], "network_")  # it is a copy that is trained


SEVERAL_JOBS = """
    import sys
    import joblib
    from sklearn_mm.annotation import label_issues

    folder = sys.argv[1]
    given = joblib.load(folder + "/job")
    with joblib.parallel_config("multiprocessing"):
        joblib.dump(label_issues(*given, cv=3, n_jobs=2), folder + "/done")
"""


@pytest.mark.slow
def test_several_jobs_give_the_same(pictures, issues, forked, tmp_path):
    X, given = pictures
    # other processes have to be told of float32: see _alike_on_every_cpu
    joblib.dump((annotator(precision="float32"), X, listed(given)), tmp_path / "job")
    status, output = forked(SEVERAL_JOBS, tmp_path)
    assert status == [0], output
    own = joblib.load(tmp_path / "done")
    np.testing.assert_array_equal(own.row, issues.row)
    np.testing.assert_allclose(own.score, issues.score, rtol=1e-4)


def test_copies_in_one_group_cannot_vouch_for_each_other(pictures):
    X, given = pictures
    row, column = WRONG[0]
    twice, labels, groups = np.r_[X, [X[row]] * 6], np.r_[given, [given[row]] * 6], np.r_[np.arange(150), [row] * 6]
    issues = label_issues(annotator(), twice, labels, cv=3, groups=groups)
    assert set(np.flatnonzero(groups == row)) <= {own for own, label, _ in found(issues[:14]) if label == str(column)}


def test_splitters_and_iterables_say_who_is_judged(pictures):
    X, given = pictures
    splits = list(KFold(3).split(X))
    issues = label_issues(annotator(), X, given, cv=splits[:1])
    assert set(issues.row) <= set(splits[0][1])
    assert len(issues)


def test_what_is_not_known_is_no_issue(pictures):
    X, given = pictures
    unknown = given.astype(float)
    unknown[3, 0] = unknown[5, 3] = np.nan
    issues = label_issues(annotator(), X, unknown, cv=3)
    assert not {(3, "0"), (5, "3")} & {(row, label) for row, label, _ in found(issues)}


def test_label_of_one_image_is_not_judged_by_models_that_never_saw_it(pictures):
    X, given = pictures
    labels = listed(given)
    labels[10] = [*labels[10], "yak"]
    issues = label_issues(annotator(), X, labels, cv=3)
    assert (10, "yak", "wrong") not in found(issues)


def test_one_label_a_row_is_wrong_and_another_is_missing():
    rng = np.random.default_rng(0)
    own = rng.integers(3, size=120)
    X = (np.eye(3)[own] + rng.normal(0, 0.1, (120, 3))).astype(np.float32)
    y = NAMES[own]
    y[7], right = NAMES[(own[7] + 1) % 3], NAMES[own[7]]
    issues = label_issues(annotator(), X, y, cv=3)
    assert found(issues[:2]) == {(7, str(right), "missing"), (7, str(y[7]), "wrong")}


def test_what_cannot_be_judged_is_refused(pictures):
    X, given = pictures
    with pytest.raises(TypeError, match="fit and predict_proba, got StandardScaler"):
        label_issues(StandardScaler(), X, given)
    with pytest.raises(ValueError, match="expected cv of 2 to 150, the number of images, got 1"):
        label_issues(annotator(), X, given, cv=1)
    with pytest.raises(ValueError, match="the number of groups, got 5"):
        label_issues(annotator(), X, given, groups=np.arange(150) % 4)
    with pytest.raises(ValueError, match="got 149 for 150 rows"):
        label_issues(annotator(), X, given[:-1])
