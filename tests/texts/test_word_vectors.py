import tracemalloc

import numpy as np
import pytest

from sklearn_mm.texts import read_word_vectors

TABLE = {"dog": [1.0, 2.0], "cat": [3.0, 4.0], "sea": [5.0, 6.0]}


def _as_text_file(tmp_path, header=""):
    path = tmp_path / "vectors.txt"
    path.write_text(header + "".join(f"{word} {a} {b}\n" for word, (a, b) in TABLE.items()), encoding="utf-8")
    return path


def _as_npy_pair(tmp_path):
    np.save(tmp_path / "vectors.npy", np.array(list(TABLE.values())))
    (tmp_path / "words.txt").write_text("\n".join(TABLE) + "\n", encoding="utf-8")
    return (tmp_path / "vectors.npy", tmp_path / "words.txt")


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp_path: TABLE,
        _as_text_file,
        lambda tmp_path: _as_text_file(tmp_path, header="3 2\n"),
        _as_npy_pair,
        lambda tmp_path: (np.array(list(TABLE.values())), list(TABLE)),
    ],
    ids=["mapping", "glove", "word2vec", "npy files", "array and list"],
)
def test_every_source_gives_the_same_vectors(make, tmp_path):
    vectors, found = read_word_vectors(make(tmp_path), ["sea", "zebra", "dog"])
    assert found.tolist() == [True, False, True]
    np.testing.assert_array_equal(vectors, np.array([[5, 6], [0, 0], [1, 2]], dtype=np.float32))


def test_a_number_among_the_words_is_no_header():
    vectors, _ = read_word_vectors({"7": [1.0], "dog": [2.0]}, ["7"])
    assert vectors.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"bird": [1.0]}, "none of the words"),
        ({"dog": [1.0], "cat": [1.0, 2.0]}, "different shapes"),
        ({"dog": [np.nan]}, "NaN"),
        ((np.zeros((3, 2)), ["dog"]), "one word per vector"),
        (7, "must be a"),
    ],
)
def test_malformed_vectors_are_named(source, message):
    with pytest.raises(ValueError, match=message):
        read_word_vectors(source, ["dog", "cat"])


def test_a_malformed_line_is_named_by_number(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 2\ndog 1 x\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        read_word_vectors(path, ["dog", "cat"])


@pytest.mark.parametrize("header", ["", "4 2\n"], ids=["glove", "word2vec"])
def test_words_may_have_spaces(tmp_path, header):
    path = tmp_path / "vectors.txt"  # as "at name@domain.com" in the largest of GloVe's files
    path.write_text(header + "at name@domain.com 9 9\nat 1 2\nred dot 3 4\n. . . 5 6\n", encoding="utf-8")
    vectors, found = read_word_vectors(path, ["red dot", "at", "red", ". . ."])
    assert found.tolist() == [True, True, False, True]
    assert vectors.tolist() == [[3, 4], [1, 2], [0, 0], [5, 6]]


def test_a_line_of_too_few_numbers_is_named(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 2\nbird 1 2\ndog 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3: expected a word and its 2 numbers"):
        read_word_vectors(path, ["dog"])


def test_what_the_vocabulary_lacks_is_not_read(tmp_path):
    class Watched(dict):
        def __getitem__(self, word):
            read.append(word)
            return super().__getitem__(word)

    read = []
    read_word_vectors(Watched(TABLE), ["sea", "zebra"])
    assert read == ["sea"]
    path = tmp_path / "vectors.txt"
    path.write_text("dog 1 2\ncat not numbers\n", encoding="utf-8")
    assert read_word_vectors(path, ["dog"])[0].tolist() == [[1, 2]]


@pytest.mark.parametrize("kind", ["npy", "text"])
def test_reading_takes_no_memory_for_what_the_vocabulary_lacks(tmp_path, kind):
    n_words, dim = 100_000, 20
    names = [f"word{number}" for number in range(n_words)]
    if kind == "npy":
        np.save(tmp_path / "vectors.npy", np.ones((n_words, dim), dtype=np.float32))
        source = (tmp_path / "vectors.npy", names)
    else:
        source = tmp_path / "vectors.txt"
        source.write_text("".join(f"{name} {'1 ' * dim}\n" for name in names), encoding="utf-8")
    wanted = names[:: n_words // 10]
    tracemalloc.start()
    vectors, found = read_word_vectors(source, wanted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.all()
    assert vectors.shape == (10, dim)
    assert peak < 2e6  # all vectors are 8 MB; the names alone, as a list, 0.8
