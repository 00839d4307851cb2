"""Tags that are the labels are told of."""

import warnings

import numpy as np
import pytest
from scipy import sparse

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.annotation._given_away import warn_of_tags_as_labels
from sklearn_mm.exceptions import LabelWarning

QUICK = {
    "hidden_layer_sizes": (4,),
    "tag_hidden_layer_sizes": (4,),
    "max_epochs": 1,
    "n_folds": None,
    "members": None,
    "random_state": 0,
}


def drawn(share_of_errors):
    """Return two features and three tags, the first of which is the second label but for some errors."""
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 2)) < 0.3).astype(np.int64)
    wrong = rng.random(200) < share_of_errors
    tags = np.column_stack([truth[:, 1] ^ wrong, rng.random((200, 2)) < 0.3])
    return np.column_stack([rng.normal(size=(200, 2)), tags]).astype(np.float32), truth


@pytest.mark.parametrize("share", [0.0, 0.005])
def test_a_tag_that_says_where_a_label_is_true_is_named_with_it(share):
    pandas = pytest.importorskip("pandas")
    X, truth = drawn(share)
    frame = pandas.DataFrame(X, columns=["a", "b", "tags__sea", "tags__sky", "tags__sun"])
    with pytest.warns(LabelWarning, match=r"where 1 of 2 labels are true: 1 \(tags__sea\); .*TagVectorizer\(exclude"):
        MultiLabelAnnotator(**QUICK, tag_features="tags__.*").fit(frame, truth)


def test_tags_that_only_help_are_not_told_of():
    X, truth = drawn(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MultiLabelAnnotator(**QUICK, tag_features=slice(2, None)).fit(X, truth)


def test_rare_labels_and_what_nearly_all_have_are_alike_by_chance():
    tags, names = np.zeros((100, 2)), np.array(["rare", "all"])
    tags[:4, 0], tags[:97, 1] = 1, 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_tags_as_labels(sparse.csr_array(tags), tags, names, names)
    tags[:5, 0] = 1
    with pytest.warns(LabelWarning, match=r"1 of 2 labels are true: 'rare' \(rare\)"):
        warn_of_tags_as_labels(sparse.csr_array(tags), sparse.csr_array(tags), names, names)
    unknown = tags.copy()
    unknown[50:, 0] = np.nan  # not known is not true
    with pytest.warns(LabelWarning, match="1 of 2"):
        warn_of_tags_as_labels(sparse.csr_array(tags), unknown, names, names)
