import pickle
import unicodedata
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_mm.exceptions import TokenizationWarning, UnknownWordsWarning
from sklearn_mm.features import TextCNNEncoder, TextGRUEncoder, TextNGramEncoder, TextSequenceEncoder
from sklearn_mm.persistence import load, save

TEXTS = [
    f"{colour} {shape}{extra}"
    for colour in ("red", "green", "blue")
    for shape in ("dot", "box")
    for extra in ("", " here", " on paper")
]
KIND = [i // 3 for i in range(18)]
FAST = {"n_components": 16, "max_epochs": 40, "batch_size": 6, "learning_rate": 3e-3, "random_state": 0}


def _encoders():
    return [
        TextCNNEncoder(width=0.3, word_dim=32, **FAST),
        TextNGramEncoder(word_dim=32, **FAST),
        TextGRUEncoder(word_dim=32, **FAST),
        TextSequenceEncoder(word_dim=32, phrase_dim=32, **FAST),
    ]


@pytest.fixture(params=_encoders(), ids=lambda encoder: type(encoder).__name__, scope="module")
def encoder(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(encoder):
    return clone(encoder).fit(TEXTS, KIND)


def test_texts_of_one_instance_come_together(fitted):
    embedding = fitted.transform(TEXTS)
    assert embedding.shape == (18, 16)
    assert embedding.dtype == np.float32
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    scores = unit @ unit.T
    same = np.equal.outer(KIND, KIND)
    assert scores[same].mean() > scores[~same].mean() + 0.1
    losses = [record["train_loss"] for record in fitted.history_]
    assert losses[-1] < losses[0] / 2


def test_without_y_every_text_is_an_instance(encoder):
    embedding = clone(encoder).fit(TEXTS).transform(TEXTS)
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    assert ((unit @ unit.T).argmax(axis=1) == np.arange(18)).mean() > 0.9


def test_a_text_is_embedded_the_same_in_any_company(fitted):
    together = fitted.transform(TEXTS)
    np.testing.assert_allclose(fitted.transform(TEXTS[4:5])[0], together[4], rtol=1e-4, atol=1e-4)


def test_instances_of_any_hashable_kind(encoder):
    encoder = clone(encoder).set_params(max_epochs=2)
    by_number = encoder.fit(TEXTS, KIND).transform(TEXTS)
    np.testing.assert_array_equal(encoder.fit(TEXTS, [f"kind {k}" for k in KIND]).transform(TEXTS), by_number)


def test_initialize_builds_an_untrained_network_over_the_vocabulary(encoder):
    encoder = clone(encoder).initialize(["b a", "b"], random_state=0)
    assert encoder.vocabulary_ == ["b", "a"]
    assert len(encoder.prepare(["a", "b b"])) == 2


def test_word_vectors_fill_the_table_and_set_its_width(encoder):
    vectors = {"red": [1.0, 0.0, 0.0], "dot": [0.0, -2.0, 0.0], "unused": [9.0, 9.0, 9.0]}
    encoder = clone(encoder).set_params(word_vectors=vectors).initialize(TEXTS, random_state=0)
    table = encoder._word_table().detach().numpy()
    assert table.shape[1] == 3
    red, dot = (table[1 + encoder.vocabulary_.index(word)] for word in ("red", "dot"))
    np.testing.assert_allclose(dot / np.linalg.norm(dot), [0, -1, 0])
    assert np.linalg.norm(dot) == pytest.approx(2 * np.linalg.norm(red))


def test_word_vectors_that_are_all_alike_stay_of_the_usual_size(encoder):
    encoder = clone(encoder).set_params(word_vectors={"red": [3.0] * 5, "dot": [3.0] * 5})
    table = encoder.initialize(TEXTS, random_state=0)._word_table().detach()
    red, here = (table[1 + encoder.vocabulary_.index(word)].square().mean().sqrt() for word in ("red", "here"))
    assert here / 3 < red < here * 3


def _fit_briefly(encoder, **parameters):
    """Fit anew; from one seed the weights start the same, whatever the parameters."""
    return clone(encoder).set_params(**{"max_epochs": 3, **parameters}).fit(TEXTS, KIND)


def test_words_that_are_not_trained_stay_as_given_while_the_rest_moves(encoder):
    vectors = {"red": np.arange(32) / 32, "dot": -np.ones(32)}
    one, three = (_fit_briefly(encoder, max_epochs=n, trainable_words=False, word_vectors=vectors) for n in (1, 3))
    table = three._word_table()
    np.testing.assert_array_equal(table, one._word_table())
    red = table[1 + three.vocabulary_.index("red")]
    np.testing.assert_allclose(red / red.norm(), vectors["red"] / np.linalg.norm(vectors["red"]), rtol=1e-5)
    assert not np.allclose(three.transform(TEXTS), one.transform(TEXTS), atol=1e-3)


def test_the_words_learn_as_much_slower_as_their_factor_says(encoder):
    start = _fit_briefly(encoder, trainable_words=False)._word_table()
    usual, slow = (
        (_fit_briefly(encoder, word_learning_rate=factor)._word_table() - start).abs().mean().item()
        for factor in (1.0, 1e-3)
    )
    assert usual / 3000 < slow < usual / 300


@pytest.mark.parametrize("how", ["pickle", "folder"])
def test_what_was_said_of_the_words_outlives_persistence(encoder, how, tmp_path):
    encoder = clone(encoder).set_params(word_learning_rate=0.25, trainable_words=False)
    encoder.initialize(TEXTS, random_state=0)
    encoder.module_.eval()
    if how == "pickle":
        opened = pickle.loads(pickle.dumps(encoder))
    else:
        save(encoder, tmp_path / "model")
        opened = load(tmp_path / "model")
    assert set(opened.module_.learning_rate_factors.values()) == {0.25}
    assert not opened._word_table().requires_grad
    np.testing.assert_array_equal(opened.transform(TEXTS), encoder.transform(TEXTS))


def test_case_pattern_and_limits_are_those_of_count_vectorizer():
    encoder = TextNGramEncoder(8, lowercase=False, token_pattern=r"\S+", max_features=2).initialize(["A-b A-b c d c c"])
    assert encoder.vocabulary_ == ["c", "A-b"]


@pytest.mark.parametrize("number", [2, np.int64(2)], ids=["int", "numpy int, as searches draw it"])
def test_a_least_number_of_texts_is_one_whatever_its_type(number):
    assert TextNGramEncoder(8, min_df=number).initialize(["a b", "b c", "b c"]).vocabulary_ == ["b", "c"]


def test_ngrams_are_told_apart_by_order():
    bag = TextNGramEncoder(8).initialize(["red on blue", "blue on red"], random_state=0)
    assert np.allclose(*bag.transform(["red on blue", "blue on red"]), atol=1e-5)
    bigrams = TextNGramEncoder(8, ngram_range=(1, 2)).initialize(["red on blue", "blue on red"], random_state=0)
    assert not np.allclose(*bigrams.transform(["red on blue", "blue on red"]), atol=1e-2)


@pytest.mark.parametrize(
    ("ngram_range", "skip", "terms"),
    [
        ((2, 2), 0, {"a b", "b c", "c d"}),
        ((2, 2), 1, {"a b", "b c", "c d", "a c", "b d"}),
        ((2, 2), 9, {"a b", "b c", "c d", "a c", "b d", "a d"}),
        ((3, 3), 1, {"a b c", "b c d", "a b d", "a c d"}),
        ((1, 2), 1, {"a", "b", "c", "d", "a b", "b c", "c d", "a c", "b d"}),
        ((1, 1), 3, {"a", "b", "c", "d"}),
    ],
    ids=lambda part: str(sorted(part) if isinstance(part, set) else part),  # a set comes in any order
)
def test_skip_grams_leave_out_words_between(ngram_range, skip, terms):
    encoder = TextNGramEncoder(4, ngram_range=ngram_range, skip=skip).initialize(["A b c d"], random_state=0)
    assert set(encoder.vocabulary_) == terms
    assert encoder.prepare(["A b c d"]).lengths.tolist() == [len(terms)]


def test_the_same_words_with_and_without_a_gap_are_one_term():
    encoder = TextNGramEncoder(4, ngram_range=(2, 2), skip=1).initialize(["red big dot"], random_state=0)
    assert encoder.prepare(["red dot"]).lengths.tolist() == [1]


def test_skips_in_what_a_callable_forms_are_refused():
    with pytest.raises(ValueError, match="skip=1 needs analyzer='word'"):
        TextNGramEncoder(4, skip=1, analyzer=str.split).fit(TEXTS)


@pytest.mark.parametrize(
    "parameters",
    [
        {"hidden_size": 24},
        {"bidirectional": True},
        {"pooling": "mean"},
        {"pooling": "max", "bidirectional": True, "hidden_size": 8},
        {"end_token": True, "dropout": 0.1},
    ],
    ids=str,
)
def test_every_form_of_the_recurrent_encoder_learns(parameters):
    encoder = TextGRUEncoder(word_dim=32, **{**FAST, **parameters}).fit(TEXTS, KIND)
    assert encoder.history_[-1]["train_loss"] < encoder.history_[0]["train_loss"] / 2
    with pytest.warns(UnknownWordsWarning):
        assert np.isfinite(encoder.transform(["zebra"])).all()


def test_the_end_token_tells_a_text_from_its_beginning():
    plain = TextGRUEncoder(8).initialize(TEXTS, random_state=0)
    ended = TextGRUEncoder(8, end_token=True).initialize(TEXTS, random_state=0)
    assert not np.allclose(plain.transform(["red dot"]), ended.transform(["red dot"]), atol=1e-4)


@pytest.mark.slow
def test_features_before_the_last_relu_are_the_embedding():
    encoder = TextCNNEncoder(width=0.3, word_dim=32, final_relu=True, **FAST).fit(TEXTS, KIND)
    assert (encoder.transform(TEXTS) < 0).any()
    assert encoder.history_[-1]["train_loss"] < encoder.history_[0]["train_loss"] / 2


def test_unknown_texts_warn_and_share_one_embedding(fitted):
    with pytest.warns(UnknownWordsWarning, match="2 of 3 texts.*rows 1, 2"):
        embedding = fitted.transform(["red dot", "zebra", ""])
    np.testing.assert_allclose(embedding[1], embedding[2], rtol=1e-5)
    assert np.isfinite(embedding).all()


@pytest.mark.parametrize(
    ("texts", "y", "error", "message"),
    [
        ("a single text", None, TypeError, "single string"),
        (["a", 3], None, TypeError, "row 1"),
        ([], None, ValueError, "at least one text"),
        (["a", "b"], [0], ValueError, "expected one instance for each row in y, got 1 for 2 rows"),
        (["?", "!"], None, ValueError, "empty vocabulary"),
    ],
)
def test_bad_texts_are_named(encoder, texts, y, error, message):
    with pytest.raises(error, match=message):
        clone(encoder).fit(texts, y)


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (TextCNNEncoder, {"width": 0.0}),
        (TextCNNEncoder, {"dropout": 1.5}),
        (TextCNNEncoder, {"min_df": "often"}),
        (TextCNNEncoder, {"device": "gpu"}),
        (TextCNNEncoder, {"final_relu": "yes"}),
        (TextGRUEncoder, {"pooling": "first"}),
        (TextGRUEncoder, {"hidden_size": 0}),
        (TextGRUEncoder, {"word_learning_rate": 0}),
        (TextSequenceEncoder, {"window": 0}),
        (TextSequenceEncoder, {"n_positions": 0}),
        (TextSequenceEncoder, {"trainable_words": "no"}),
        (TextNGramEncoder, {"skip": -1}),
        (TextNGramEncoder, {"ngram_range": (2, 1)}),
        (TextNGramEncoder, {"ngram_range": (0, 1), "skip": 1}),
        (TextNGramEncoder, {"ngram_range": (1, 2, 3)}),
    ],
    ids=str,
)
def test_bad_parameters_are_named(cls, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        cls(**parameters).fit(TEXTS)


def test_transform_before_fit_says_so():
    with pytest.raises(NotFittedError):
        TextCNNEncoder().transform(TEXTS)


# Scripts, and forms of Unicode --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fitted", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_query_finds_its_words_however_its_accents_are_typed(encoder, fitted, asked):
    texts = ["un château rouge", "une forêt dorée", "le café fermé"]
    fitted, asked = ([unicodedata.normalize(form, text) for text in texts] for form in (fitted, asked))
    encoder = clone(encoder).initialize(fitted, random_state=0)
    encoder.module_.eval()
    assert encoder.prepare(asked).lengths.tolist() == [3, 3, 3]
    np.testing.assert_array_equal(encoder.transform(asked), encoder.transform(fitted))
    as_typed = encoder.set_params(unicode_form=None).initialize(["un ch\u00e2teau"], random_state=0)
    assert as_typed.prepare(["un cha\u0302teau"]).lengths.tolist() == [1]


def test_words_of_hindi_are_told_apart_by_their_vowels(encoder):
    words = ["की", "का", "के", "कि"]
    assert sorted(clone(encoder).initialize(words, random_state=0).vocabulary_) == sorted(words)


def test_sentences_that_are_taken_for_words_are_warned_of(encoder):
    sentences = ["一只狗在草地上奔跑", "两个人在桌子旁谈话"]
    by_characters = clone(encoder).initialize(sentences, random_state=0)
    assert by_characters.prepare(["狗在奔跑"]).lengths.tolist() == [4]
    with pytest.warns(TokenizationWarning, match="'一只狗在草地上奔跑'.*token_pattern=None takes characters"):
        clone(encoder).set_params(token_pattern=r"\w+").initialize(sentences, random_state=0)
    clone(encoder).set_params(analyzer=list).initialize(sentences, random_state=0)


@pytest.mark.parametrize("how", ["pickle", "folder"])
def test_a_model_saved_before_there_were_forms_takes_texts_as_they_come(encoder, how, tmp_path, monkeypatch):
    encoder = clone(encoder).set_params(token_pattern=r"(?u)\b\w+\b", unicode_form=None)
    encoder.initialize(["un cha\u0302teau"], random_state=0)
    encoder.module_.eval()
    state = encoder.__getstate__()
    older = {name: value for name, value in state.items() if name not in ("unicode_form", "word_coverage_")}
    monkeypatch.setattr(type(encoder), "__getstate__", lambda self: older)
    if how == "pickle":
        opened = pickle.loads(pickle.dumps(encoder))
    else:
        save(encoder, tmp_path / "model")
        opened = load(tmp_path / "model")
    assert opened.unicode_form is None
    assert opened.word_coverage_ is None
    assert opened.prepare(["cha\u0302teau"]).lengths.tolist() == [2]
    assert clone(opened).get_params() == encoder.get_params()


def test_how_many_words_have_a_vector_is_told(encoder, capsys):
    vectors = {word: [1.0, 2.0] for word in ("red", "green", "blue", "dot", "box", "here")}
    encoder = clone(encoder).set_params(word_vectors=vectors, verbose=1).initialize(TEXTS, random_state=0)
    assert encoder.word_coverage_ == 0.75
    assert "word_vectors hold 6 of the 8 words" in capsys.readouterr().out
    assert encoder.set_params(word_vectors=None).initialize(TEXTS, random_state=0).word_coverage_ is None
    of_another_language = {word: [1.0, 2.0] for word in ("red", "rouge", "vert", "bleu", "boîte", "ici", "sur", "le")}
    with pytest.warns(UnknownWordsWarning, match="hold 1 of the 8 words of the vocabulary, and not '"):
        encoder.set_params(word_vectors=of_another_language).initialize(TEXTS, random_state=0)
    with warnings.catch_warnings():  # a few of one's own
        warnings.simplefilter("error")
        encoder.set_params(word_vectors={"red": [1.0, 2.0]}).initialize(TEXTS, random_state=0)
