"""A ranker without torch, for the tests of what works on rankers."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge

from sklearn_mm._checks import check_captions
from sklearn_mm.index import ExactIndex


class LinearRanker(TransformerMixin, BaseEstimator):
    """Predict the (centred) features of an image from the words of a sentence by ridge regression."""

    def __init__(self, alpha=1.0, similarity="cosine"):
        self.alpha = alpha
        self.similarity = similarity

    def fit(self, X, y, sample_weight=None, groups=None):
        captions = check_captions(y, X)
        X = np.asarray(X, dtype=float)
        self.groups_seen_ = groups
        self.mean_ = X.mean(axis=0)
        self.vectorizer_ = CountVectorizer(binary=True)
        words = self.vectorizer_.fit_transform(captions.texts)
        self.ridge_ = Ridge(alpha=self.alpha).fit(words, (X - self.mean_)[captions.image_index])
        self.texts_ = captions.texts
        self.set_gallery(images=X)
        return self

    def set_gallery(self, images):
        self.images_ = ExactIndex().add(self.transform(images))
        return self

    def transform(self, X):
        embedded = np.asarray(X, dtype=float) - self.mean_
        return (embedded / np.linalg.norm(embedded, axis=1, keepdims=True)).astype(np.float32)

    def transform_text(self, texts):
        embedded = self.ridge_.predict(self.vectorizer_.transform(texts))
        return (embedded / np.linalg.norm(embedded, axis=1, keepdims=True)).astype(np.float32)

    def search_images(self, texts, k):
        return self.images_.search(self.transform_text(texts), k)

    def score(self, X, y, sample_weight=None, groups=None):
        raise NotImplementedError("score with a scorer")
