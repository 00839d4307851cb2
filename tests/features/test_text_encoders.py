import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from sklearn_mm.exceptions import UnknownWordsWarning
from sklearn_mm.features import TextCNNEncoder, TextNGramEncoder

TEXTS = [
    f"{colour} {shape}{extra}"
    for colour in ("red", "green", "blue")
    for shape in ("dot", "box")
    for extra in ("", " here", " on paper")
]
KIND = [i // 3 for i in range(18)]
FAST = {"n_components": 16, "max_epochs": 40, "batch_size": 6, "learning_rate": 3e-3, "random_state": 0}


def _encoders():
    return [TextCNNEncoder(width=0.3, word_dim=32, **FAST), TextNGramEncoder(word_dim=32, **FAST)]


@pytest.fixture(params=_encoders(), ids=lambda encoder: type(encoder).__name__, scope="module")
def encoder(request):
    return request.param


def test_texts_of_one_instance_come_together(encoder):
    embedding = encoder.fit(TEXTS, KIND).transform(TEXTS)
    assert embedding.shape == (18, 16)
    assert embedding.dtype == np.float32
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    scores = unit @ unit.T
    same = np.equal.outer(KIND, KIND)
    assert scores[same].mean() > scores[~same].mean() + 0.1
    losses = [record["train_loss"] for record in encoder.history_]
    assert losses[-1] < losses[0] / 2


def test_without_y_every_text_is_an_instance(encoder):
    embedding = encoder.fit(TEXTS).transform(TEXTS)
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    assert ((unit @ unit.T).argmax(axis=1) == np.arange(18)).mean() > 0.9


def test_a_text_is_embedded_the_same_in_any_company(encoder):
    encoder.fit(TEXTS, KIND)
    together = encoder.transform(TEXTS)
    np.testing.assert_allclose(encoder.transform(TEXTS[4:5])[0], together[4], rtol=1e-4, atol=1e-4)


def test_instances_of_any_hashable_kind(encoder):
    by_number = encoder.fit(TEXTS, KIND).transform(TEXTS)
    np.testing.assert_array_equal(encoder.fit(TEXTS, [f"kind {k}" for k in KIND]).transform(TEXTS), by_number)


def test_initialize_builds_an_untrained_network_over_the_vocabulary(encoder):
    encoder.initialize(["b a", "b"], random_state=0)
    assert encoder.vocabulary_ == ["b", "a"]
    assert len(encoder.prepare(["a", "b b"])) == 2


def test_word_vectors_fill_the_table_and_set_its_width():
    vectors = {"red": [1.0, 0.0, 0.0], "dot": [0.0, -2.0, 0.0], "unused": [9.0, 9.0, 9.0]}
    encoder = TextCNNEncoder(8, width=0.05, word_vectors=vectors).initialize(TEXTS, random_state=0)
    table = encoder.module_.words.weight.detach().numpy()
    assert table.shape[1] == 3
    red, dot = (table[1 + encoder.vocabulary_.index(word)] for word in ("red", "dot"))
    np.testing.assert_allclose(dot / np.linalg.norm(dot), [0, -1, 0])
    assert np.linalg.norm(dot) == pytest.approx(2 * np.linalg.norm(red))


def test_case_pattern_and_limits_are_those_of_count_vectorizer():
    encoder = TextNGramEncoder(8, lowercase=False, token_pattern=r"\S+", max_features=2).initialize(["A-b A-b c d c c"])
    assert encoder.vocabulary_ == ["c", "A-b"]


def test_ngrams_are_told_apart_by_order():
    bag = TextNGramEncoder(8).initialize(["red on blue", "blue on red"], random_state=0)
    assert np.allclose(*bag.transform(["red on blue", "blue on red"]), atol=1e-5)
    bigrams = TextNGramEncoder(8, ngram_range=(1, 2)).initialize(["red on blue", "blue on red"], random_state=0)
    assert not np.allclose(*bigrams.transform(["red on blue", "blue on red"]), atol=1e-2)


def test_unknown_texts_warn_and_share_one_embedding(encoder):
    encoder.fit(TEXTS, KIND)
    with pytest.warns(UnknownWordsWarning, match="2 of 3 texts.*rows 1, 2"):
        embedding = encoder.transform(["red dot", "zebra", ""])
    np.testing.assert_allclose(embedding[1], embedding[2], rtol=1e-5)
    assert np.isfinite(embedding).all()


@pytest.mark.parametrize(
    ("texts", "y", "error", "message"),
    [
        ("a single text", None, TypeError, "single string"),
        (["a", 3], None, TypeError, "row 1"),
        ([], None, ValueError, "at least one text"),
        (["a", "b"], [0], ValueError, "one instance per text"),
        (["?", "!"], None, ValueError, "empty vocabulary"),
    ],
)
def test_bad_texts_are_named(encoder, texts, y, error, message):
    with pytest.raises(error, match=message):
        encoder.fit(texts, y)


@pytest.mark.parametrize(
    "parameters", [{"width": 0.0}, {"dropout": 1.5}, {"min_df": "often"}, {"device": "gpu"}], ids=str
)
def test_bad_parameters_are_named(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        TextCNNEncoder(**parameters).fit(TEXTS)


def test_transform_before_fit_says_so():
    with pytest.raises(NotFittedError):
        TextCNNEncoder().transform(TEXTS)
