"""Words that training has not seen are named, and paths are no sentences."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer

from sklearn_mm.exceptions import UnknownWordsWarning
from sklearn_mm.features import TextNGramEncoder
from sklearn_mm.retrieval import CorrelationRanker, JointEmbeddingRanker, RankerEnsemble

CAPTIONS = [f"a {colour} {shape}" for colour in ("red", "green", "blue") for shape in ("dot", "box", "star")] * 3
FEATURES = np.tile(np.eye(9), (3, 1)).astype(np.float32) + np.random.default_rng(0).normal(0, 0.1, (27, 9))


def letters(texts):
    return np.array([[text.count(letter) for letter in "abcde"] for text in texts], dtype=np.float32)


def solved(encoder=None):
    return CorrelationRanker(encoder, n_components=3, regularization=1.0, random_state=0).fit(FEATURES, CAPTIONS)


def trained(**options):
    encoder = TextNGramEncoder(8, word_dim=8, **options)
    return JointEmbeddingRanker(encoder, n_components=8, max_epochs=1, random_state=0).fit(FEATURES, CAPTIONS)


WORDS = {
    "tf-idf": lambda: solved(),
    "a vectorizer of pairs too": lambda: solved(TfidfVectorizer(ngram_range=(1, 2))),
    "a union of vectorizers": lambda: solved(make_union(TfidfVectorizer(), TfidfVectorizer(sublinear_tf=True))),
    "a frozen one": lambda: solved(FrozenEstimator(TfidfVectorizer().fit(CAPTIONS))),
    "a pipeline": lambda: solved(make_pipeline(TfidfVectorizer(), "passthrough")),
    "a trained encoder": lambda: trained(),
    "a trained encoder of pairs too": lambda: trained(ngram_range=(1, 2)),
    "several rankers": lambda: RankerEnsemble(
        [
            ("solved", CorrelationRanker(n_components=3, regularization=1.0)),
            ("trained", JointEmbeddingRanker(n_components=8, max_epochs=1)),
        ],
        random_state=0,
    ).fit(FEATURES, CAPTIONS),
}


@pytest.mark.parametrize("make", WORDS.values(), ids=WORDS)
def test_a_word_that_training_has_not_seen_is_named_once(make):
    ranker = make()
    assert ranker.unknown_words(["a red giraffe", "a zebra, red"]) == ["giraffe", "zebra"]
    with pytest.warns(UnknownWordsWarning, match="no effect on what is found: 'giraffe', 'zebra'; say it in words"):
        scores, rows = ranker.search_images(["a red giraffe", "a zebra"], k=2)
    assert scores.shape == rows.shape == (2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranker.search_images(["a blue giraffe", "a Red box"], k=2)
        ranker.search_images(["a red okapi"], k=2, warn_unknown=False)
    with pytest.warns(UnknownWordsWarning, match="found: 'okapi';"):
        ranker.search_images(["a red okapi", "a red giraffe"], k=2)


@pytest.mark.parametrize(
    "encoder",
    [FunctionTransformer(letters), make_union(FunctionTransformer(letters), TfidfVectorizer())],
    ids=["of letters", "beside words"],
)
def test_an_encoder_that_knows_no_words_but_more_than_words_says_nothing(encoder):
    assert solved(encoder).unknown_words(["a giraffe"]) == []
    assert solved(TfidfVectorizer(analyzer="char")).unknown_words(["a giraffe"]) == []


def test_what_was_told_is_told_again_after_a_fit_and_by_a_copy():
    ranker = solved()
    with pytest.warns(UnknownWordsWarning, match="'giraffe'"):
        ranker.search_images(["a red giraffe"], k=1)
    for again in (pickle.loads(pickle.dumps(ranker)), ranker.fit(FEATURES, CAPTIONS)):
        with pytest.warns(UnknownWordsWarning, match="'giraffe'"):
            again.search_images(["a red giraffe"], k=1)


def test_many_unknown_words_are_counted():
    with pytest.warns(UnknownWordsWarning, match="'w0', 'w1', 'w2', 'w3', 'w4' and 3 more"):
        solved().search_images(["a red " + " ".join(f"w{n}" for n in range(8))], k=1)


@pytest.mark.parametrize("path", ["cat.jpg", "my photos/a red cat.PNG", "photos/cat.webp "])
def test_a_path_where_a_sentence_belongs_is_refused(path):
    with pytest.raises(ValueError, match="got the path of a picture in row 1: .*search_texts .*Gallery"):
        solved().search_images(["a red dot", path], k=1)


def test_a_sentence_may_end_in_a_suffix():
    solved().search_images(["a red box .jpg"], k=1, warn_unknown=False)
