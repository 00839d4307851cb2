import bz2
import gzip
import lzma
import tracemalloc
import unicodedata
import zipfile

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


# Files and objects as people have them ----------------------------------------------------------------------------


def _lines(separator=" ", header="", table=TABLE):
    return header + "".join(f"{word}{separator}{a}{separator}{b}\n" for word, (a, b) in table.items())


def _zipped(path, text, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, text)
    return path


WAYS = {
    "tabs": lambda path: path.write_text(_lines("\t")),
    "tabs and a header": lambda path: path.write_text(_lines("\t", "3\t2\n")),
    "commas": lambda path: path.write_text(_lines(",")),
    "a table that pandas wrote": lambda path: path.write_text(_lines(",", ",0,1\n")),
    "a table with names of columns": lambda path: path.write_text(_lines(",", "word,first,second\n")),
    "ends of lines of Windows": lambda path: path.write_text(_lines(), newline="\r\n"),
    "blanks at the ends of lines": lambda path: path.write_text(_lines().replace("\n", " \n")),
    "a byte order mark": lambda path: path.write_text(_lines(), encoding="utf-8-sig"),
    "gzip": lambda path: path.write_bytes(gzip.compress(_lines().encode())),
    "bzip2": lambda path: path.write_bytes(bz2.compress(_lines().encode())),
    "xz": lambda path: path.write_bytes(lzma.compress(_lines().encode())),
    "zip": lambda path: _zipped(path, _lines(), "__MACOSX/._x", "a/vectors.txt"),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_vectors_are_read_from_any_kind_of_file(way, tmp_path):
    path = tmp_path / "vectors.txt"
    way(path)
    vectors, found = read_word_vectors(path, ["sea", "zebra", "dog"])
    assert found.tolist() == [True, False, True]
    assert vectors.tolist() == [[5, 6], [0, 0], [1, 2]]


def test_one_of_several_files_of_an_archive_is_named_in_its_path(tmp_path):
    path = _zipped(tmp_path / "vectors.zip", _lines(), "50d.txt", "100d.txt")
    with pytest.raises(ValueError, match=r"holds 2 files: 50d\.txt, 100d\.txt; name one of them: '.*vectors\.zip/50d"):
        read_word_vectors(path, ["dog"])
    assert read_word_vectors(path / "100d.txt", ["dog"])[0].tolist() == [[1, 2]]
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        read_word_vectors(tmp_path / "nowhere.txt", ["dog"])


def test_words_that_are_commas_and_quotes_are_found_in_a_table(tmp_path):
    path = tmp_path / "vectors.csv"
    path.write_text('",",1,2\n"""",3,4\ndog,5,6\n')
    assert read_word_vectors(path, [",", '"', "dog"])[0].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_a_file_that_is_cut_off_is_named(tmp_path):
    path = tmp_path / "vectors.gz"
    path.write_bytes(gzip.compress(_lines().encode())[:-10])
    with pytest.raises(ValueError, match=r"vectors\.gz ends before its end"):
        read_word_vectors(path, ["zebra"])


def test_the_binary_form_of_word2vec_is_told(tmp_path):
    path = tmp_path / "vectors.bin"
    path.write_bytes(b"2 3\ndog " + np.array([1, 2, 3], np.float32).tobytes() + b"\n")
    with pytest.raises(
        ValueError, match=r"vectors\.bin, line 2: .*KeyedVectors\.load_word2vec_format\(path, binary=True\)"
    ):
        read_word_vectors(path, ["dog"])


class _Keyed:
    """As gensim's KeyedVectors, which is no mapping."""

    key_to_index = {word: place for place, word in enumerate(TABLE)}
    vectors = np.array(list(TABLE.values()))


class _KeyedBySubscript:
    key_to_index = _Keyed.key_to_index

    def __getitem__(self, word):
        return np.array(TABLE[word])


@pytest.mark.parametrize("source", [_Keyed(), _KeyedBySubscript()], ids=["vectors", "subscript"])
def test_keyed_vectors_are_taken(source):
    vectors, found = read_word_vectors(source, ["sea", "zebra", "dog"])
    assert found.tolist() == [True, False, True]
    assert vectors.tolist() == [[5, 6], [0, 0], [1, 2]]


def test_the_first_of_two_vectors_of_a_word_counts(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("dog 1 2\ncat 3 4\ndog 5 6\n")
    for source in (path, (np.array([[1, 2], [3, 4], [5, 6]]), ["dog", "cat", "dog"])):
        assert read_word_vectors(source, ["dog", "zebra"])[0].tolist() == [[1, 2], [0, 0]]


@pytest.mark.parametrize(("asked", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_words_are_found_in_every_form_of_unicode(tmp_path, asked, stored):
    word, known = (unicodedata.normalize(form, "château") for form in (asked, stored))
    (tmp_path / "vectors.txt").write_text(f"{known} 1 2\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text(f"\ufeff{known}\n", encoding="utf-8")
    sources = ({known: [1, 2]}, tmp_path / "vectors.txt", (np.array([[1, 2]]), tmp_path / "words.txt"))
    for source in sources:
        assert read_word_vectors(source, [word])[0].tolist() == [[1, 2]]
