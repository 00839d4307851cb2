import numpy as np
import pytest

from sklearn_mm.texts import TokenRows, Vocabulary, build_tokenizer

TOKENIZE = build_tokenizer(True, r"(?u)\b\w+\b", "word")


def test_ids_follow_falling_frequency_then_the_alphabet():
    vocabulary = Vocabulary.fit(["b a a", "c b a"], TOKENIZE)
    assert vocabulary.words == ["a", "b", "c"]
    assert vocabulary.index == {"a": 1, "b": 2, "c": 3}


def test_min_df_counts_texts_not_occurrences():
    texts = ["rare rare rare word", "word"]
    assert Vocabulary.fit(texts, TOKENIZE, min_df=2).words == ["word"]
    assert Vocabulary.fit(texts, TOKENIZE, min_df=0.6).words == ["word"]


def test_max_features_keeps_the_most_frequent():
    assert Vocabulary.fit(["a a b b b c"], TOKENIZE, max_features=2).words == ["b", "a"]


def test_an_empty_vocabulary_says_how_to_mend_it():
    with pytest.raises(ValueError, match="empty vocabulary.*min_df"):
        Vocabulary.fit(["one two"], TOKENIZE, min_df=2)


def test_encoding_drops_unknown_words_and_keeps_empty_rows():
    vocabulary = Vocabulary.fit(["a b"], TOKENIZE)
    rows = vocabulary.encode(["B zebra a", "zebra", "A"], TOKENIZE)
    assert rows.lengths.tolist() == [2, 0, 1]
    assert rows.ids.tolist() == [2, 1, 1]


def test_ngrams_are_terms_like_words():
    tokenize = build_tokenizer(True, r"(?u)\b\w+\b", "word", (1, 2))
    assert Vocabulary.fit(["red box"], tokenize).words == ["box", "red", "red box"]


@pytest.mark.parametrize("index", [np.array([2, 0, 0]), slice(1, 3), np.array([], dtype=int)])
def test_rows_are_taken_as_from_a_list(index):
    ragged = [[1, 2], [], [3]]
    rows = TokenRows(np.array([1, 2, 3]), np.array([0, 2, 2, 3]))
    taken = rows[index]
    expected = [ragged[i] for i in np.arange(3)[index]]
    assert [taken.ids[a:b].tolist() for a, b in zip(taken.starts[:-1], taken.starts[1:], strict=True)] == expected
