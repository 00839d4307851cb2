import numpy as np
import pytest
from sklearn.base import BaseEstimator

from sklearn_mm.retrieval import CorrelationRanker, Gallery, JointEmbeddingRanker, RankerEnsemble

WORDS = ("red", "green", "blue", "dot", "box", "star")


class WordRanker(BaseEstimator):
    """A ranker of one's own: features say how much of each word is in a picture."""

    similarity = "cosine"

    def fit(self, X, y=None):
        self.n_features_in_ = len(WORDS)
        return self

    def transform(self, X):
        return np.asarray(X, dtype=np.float32)

    def transform_text(self, texts):
        return np.array([[text.split().count(word) for word in WORDS] for text in texts], dtype=np.float32) + 1e-3


@pytest.fixture
def word_ranker():
    return WordRanker().fit(None)


@pytest.fixture
def toys(word_ranker):
    """Nine pictures, a colour and a shape each, with the year and the box they are kept in."""
    features = np.array([np.eye(6)[colour] + 0.9 * np.eye(6)[3 + shape] for colour in range(3) for shape in range(3)])
    names = [f"{colour}-{shape}" for colour in WORDS[:3] for shape in WORDS[3:]]
    metadata = {"year": list(range(2018, 2027)), "box": list("abcabcabc")}
    return Gallery(word_ranker).add(features, ids=names, metadata=metadata)


@pytest.fixture(scope="session")
def fitted():
    """A solved ranker, corrected for hubs, and 96 rows of features."""
    rng = np.random.default_rng(0)
    colour, shape = rng.integers(3, size=96), rng.integers(3, size=96)
    features = np.concatenate([np.eye(3)[colour], np.eye(3)[shape], rng.normal(size=(96, 5))], axis=1)
    features = (features + rng.normal(0, 0.05, features.shape)).astype(np.float32)
    captions = [
        [f"a {WORDS[c]} {WORDS[3 + s]}", f"{WORDS[3 + s]} in {WORDS[c]}"] for c, s in zip(colour, shape, strict=True)
    ]
    ranker = CorrelationRanker(n_components=8, regularization=0.1, hubness="nnn", random_state=0).fit(
        features, captions
    )
    assert ranker.hubness_ is not None
    return ranker, features, captions


@pytest.fixture(scope="session")
def trained(fitted):
    """Rankers of other kinds on the same data."""
    _, features, captions = fitted
    parameters = {"n_components": 8, "max_epochs": 1, "random_state": 0, "device": "cpu"}
    rankers = {
        "trained": JointEmbeddingRanker(**parameters),
        "order": JointEmbeddingRanker(similarity="order", **parameters),
        "ensemble": RankerEnsemble(
            [("one", CorrelationRanker(regularization=0.1)), ("two", CorrelationRanker(regularization=0.01))],
            weights=None,
            random_state=0,
        ),
    }
    return {name: ranker.fit(features, captions) for name, ranker in rankers.items()}
