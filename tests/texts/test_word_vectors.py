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
