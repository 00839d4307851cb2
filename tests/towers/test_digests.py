import numpy as np
import pytest
from scipy import sparse

from sklearn_mm.towers import row_digests


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_equal_rows_have_equal_digests(make):
    X = make(np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 1.0]], dtype=np.float32))
    digests = row_digests(X)
    assert digests[0] == digests[2] != digests[1]


def test_sparse_rows_are_the_same_in_whatever_order_their_values_stand():
    X = sparse.csr_array((np.array([2.0, 1.0, 1.0, 2.0]), np.array([2, 0, 0, 2]), np.array([0, 2, 4])), shape=(2, 3))
    first, second = row_digests(X)
    assert first == second


def test_stored_zeros_and_entries_in_parts_do_not_tell_rows_apart():
    plain = sparse.csr_array(np.array([[0.0, 1.0, 0.0]]))
    stored = sparse.csr_array(([0.0, 1.0], [0, 1], [0, 2]), shape=(1, 3))
    in_parts = sparse.coo_array(([0.5, 0.5], ([0, 0], [1, 1])), shape=(1, 3))
    assert row_digests(plain) == row_digests(stored) == row_digests(in_parts)
    assert stored.nnz == 2


def test_zeros_below_and_above_are_equal():
    assert row_digests(np.array([[0.0, 1.0]])) == row_digests(np.array([[-0.0, 1.0]]))
