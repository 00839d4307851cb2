import numpy as np
import pytest

from sklearn_mm.index import ExactIndex, recall_against_exact


class Fixed:
    """Finds what it was told to."""

    def __init__(self, found):
        self.found = np.array(found)

    def __len__(self):
        return 4

    def search(self, Q, k):
        return np.zeros(self.found.shape, dtype=np.float32), self.found[:, :k]


@pytest.mark.parametrize(
    ("found", "share"), [([[0, 3], [1, 0]], 0.75), ([[-1, -1], [-1, -1]], 0), ([[2, 0], [0, 1]], 1)]
)
def test_it_is_the_share_of_neighbours_found(found, share):
    items = np.array([[3.0, 3.0], [0.0, 2.0], [2.0, 0.0], [-1.0, -1.0]])
    queries = np.eye(2)  # whose neighbours are 0 and 2, and 0 and 1
    for exact in (items, ExactIndex().add(items)):
        assert recall_against_exact(Fixed(found), exact, queries, 2) == share


def test_indexes_of_other_items_are_told_apart():
    with pytest.raises(ValueError, match="the index holds 4 and what it is compared with 5"):
        recall_against_exact(Fixed([[0]]), np.eye(5), np.eye(5)[:1], 1)
