import numpy as np
from scipy import sparse

from sklearn_mm.annotation._data import merge_labeled

FEATURES = np.array([[0.0], [1.0], [0.0], [0.0]])
LABELS = sparse.csr_array(np.array([[1, 0], [0, 1], [1, 0], [1, 0]], dtype=np.float32))


def test_equal_rows_are_one_image_but_not_across_groups():
    assert len(merge_labeled([FEATURES], LABELS, None)) == 2
    kept = merge_labeled([FEATURES], LABELS, None, np.array(["p", "p", "q", "p"]))
    assert sorted(zip(kept.rows.tolist(), kept.group.tolist(), kept.weight.tolist(), strict=True)) == [
        (0, 0, 1.5),
        (1, 0, 0.75),
        (2, 1, 0.75),
    ]


def test_the_order_of_images_is_not_that_of_rows_or_names_of_groups():
    rng = np.random.default_rng(0)
    features, groups = rng.normal(size=(20, 2)), np.arange(20) // 2
    labels = sparse.csr_array(rng.integers(0, 2, (20, 3)).astype(np.float32))
    plain = merge_labeled([features], labels, None)
    for numbered in (groups, 100 - groups, groups.astype(str)):
        np.testing.assert_array_equal(merge_labeled([features], labels, None, numbered).rows, plain.rows)
