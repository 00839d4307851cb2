import os
import sqlite3
import time
import warnings
from pathlib import Path
from threading import Timer

import numpy as np
import pytest

from sklearn_mm.exceptions import CacheWarning, ImageReadError
from sklearn_mm.images import PictureReader, RowCache
from sklearn_mm.images import _cache as cache_module

LONG_AGO_S = 3600


class CountingReader(PictureReader):
    """Counts the files that are hashed."""

    def digest(self, source):
        counts.append(source)
        return super().digest(source)


counts = []


@pytest.fixture(autouse=True)
def _count_from_zero():
    counts.clear()


def vectors(cache, names, seed=0):
    rng = np.random.default_rng(seed)
    return {cache.key(name.encode()): rng.random(7, dtype=np.float32) for name in names}


def put(cache, vectors, **options):
    cache.put({(key, 0): vector for key, vector in vectors.items()}, **options)


def written_long_ago(path, content):
    path.write_bytes(content)
    then = time.time() - LONG_AGO_S
    os.utime(path, (then, then))


def test_vectors_come_back_exactly_in_another_process_of_the_same_configuration(tmp_path):
    with RowCache(tmp_path, "network") as cache:
        stored = vectors(cache, "abc")
        put(cache, stored)
    with RowCache(tmp_path, "network") as cache:
        found = dict(cache.get(list(stored)))
        assert found.keys() == stored.keys()
        for key, vector in stored.items():
            np.testing.assert_array_equal(found[key], vector)
        assert cache.missing([*stored, b"x" * 32, b"x" * 32]) == [b"x" * 32]


def test_other_configurations_have_other_keys(tmp_path):
    with RowCache(tmp_path, "one") as one, RowCache(tmp_path, "other") as other:
        put(one, vectors(one, "a"))
        assert other.missing([other.key(b"a")])


def test_many_keys_are_looked_up_at_once(tmp_path):
    with RowCache(tmp_path, "network") as cache:
        stored = vectors(cache, [str(number) for number in range(1203)])
        put(cache, stored)
        assert cache.missing(list(stored)) == []
        assert len(dict(cache.get(list(stored)))) == 1203


def test_notes_are_kept_for_each_configuration(tmp_path):
    with RowCache(tmp_path, "network") as cache:
        assert cache.note() is None
        cache.change_note(lambda note: [["conv1", 64]])
    with RowCache(tmp_path, "network") as cache, RowCache(tmp_path, "other") as other:
        assert cache.note() == [["conv1", 64]]
        assert other.note() is None


def test_what_one_process_claims_no_other_computes(tmp_path):
    with RowCache(tmp_path, "network") as one, RowCache(tmp_path, "network") as other:
        keys = [one.key(bytes([number])) for number in range(4)]
        assert one.claim(keys[:3]) == keys[:3]
        assert other.claim(keys) == keys[3:]
        put(one, {keys[0]: np.zeros(7, dtype=np.float32)})
        one.release([keys[1]])
        assert other.claim(keys) == [keys[1], keys[3]]  # its own claims it may renew
        assert other.missing(keys) == keys[1:]


def test_claims_end_with_their_owner(tmp_path):
    with RowCache(tmp_path, "network") as other:
        with RowCache(tmp_path, "network") as one:
            keys = [one.key(b"a")]
            one.claim(keys)
            assert other.claim(keys) == []
        assert other.claim(keys) == keys


@pytest.mark.parametrize("owner", ["dead process", "expired"])
def test_claims_of_the_dead_are_taken_over(tmp_path, owner, monkeypatch):
    with RowCache(tmp_path, "network") as one, RowCache(tmp_path, "network") as other:
        keys = [one.key(b"a")]
        one.claim(keys)
        if owner == "expired":
            now = time.time()
            monkeypatch.setattr(time, "time", lambda: now + LONG_AGO_S)
        else:

            def no_such_process(pid, signal):
                raise ProcessLookupError

            monkeypatch.setattr(os, "kill", no_such_process)
        assert other.claim(keys) == keys


def test_a_file_is_hashed_once_while_it_does_not_change(tmp_path, monkeypatch):
    path = tmp_path / "picture"
    written_long_ago(path, b"content")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LONG_AGO_S)  # the change time cannot be set back
    reader = CountingReader(8, 8)
    for _ in range(3):
        with RowCache(tmp_path, "network") as cache:
            assert cache.digest(reader, path) == reader.digest(b"content")
            assert cache.digest(reader, str(path)) == reader.digest(b"content")
            cache.remember_files()
    assert [source for source in counts if source != b"content"] == [path, str(path)]  # before it was remembered


def test_a_file_whose_name_is_not_utf_8_is_hashed_once_too(tmp_path, monkeypatch):
    path = tmp_path / os.fsdecode(b"caf\xe9")
    written_long_ago(path, b"content")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LONG_AGO_S)
    reader = CountingReader(8, 8)
    for name in (path, str(path)):
        with RowCache(tmp_path / "cache", "network") as cache:
            assert cache.digest(reader, name) == reader.digest(b"content")
            cache.remember_files()
    assert counts.count(path) == 1
    assert str(path) not in counts
    (entry,) = (entry for entry in os.scandir(os.fsencode(tmp_path)) if entry.is_file())
    with RowCache(tmp_path / "cache", "network") as cache:
        assert cache.digest(reader, entry) == reader.digest(b"content")
    assert entry not in counts


def test_a_changed_file_is_hashed_again_even_with_its_old_time_and_size(tmp_path, monkeypatch):
    path = tmp_path / "picture"
    written_long_ago(path, b"content")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LONG_AGO_S)
    reader = PictureReader(8, 8)
    with RowCache(tmp_path, "network") as cache:
        before = cache.digest(reader, path)
        cache.remember_files()
        stat = path.stat()
        time.sleep(0.02)
        path.write_bytes(b"CONTENT")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert cache.digest(reader, path) == reader.digest(b"CONTENT") != before


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(b"content")
    reader = CountingReader(8, 8)
    with RowCache(tmp_path, "network") as cache:
        for _ in range(2):
            cache.digest(reader, path)
            cache.remember_files()
    assert len(counts) == 2


def test_a_missing_file_has_no_digest(tmp_path):
    with RowCache(tmp_path, "network") as cache, pytest.raises(ImageReadError, match="no such file"):
        cache.digest(PictureReader(8, 8), tmp_path / "absent")


def test_a_missing_file_is_named_with_the_folder_that_was_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RowCache(tmp_path, "network") as cache, pytest.raises(ImageReadError, match=f"looked for from {tmp_path}"):
        cache.digest(PictureReader(8, 8), "absent.png")


def test_the_folder_is_made_and_a_broken_file_is_named(tmp_path):
    folder = tmp_path / "a" / "b"
    with RowCache(folder, "network"):
        pass
    (file,) = Path(folder).glob("*.sqlite")
    file.write_bytes(b"this is no data base" * 100)
    with pytest.raises(OSError, match="cannot use the cache"), RowCache(folder, "network"):
        pass


def test_an_error_while_writing_leaves_nothing_half_written(tmp_path, monkeypatch):
    with RowCache(tmp_path, "network") as cache:
        stored = vectors(cache, "ab")

        def interrupted(keys):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(cache, "_delete_claims", interrupted)
            put(cache, stored)
        assert cache.missing(list(stored)) == list(stored)
        put(cache, stored)
        assert cache.missing(list(stored)) == []


# Several vectors of a picture, and how many bytes ---------------------------------------------------------------------


def test_parts_of_a_picture_are_stored_and_missed_each_for_itself(tmp_path):
    with RowCache(tmp_path, "network") as cache:
        (one, first), (other, second) = vectors(cache, "ab").items()
        cache.put({(one, 0): first, (one, 1): second, (other, 1): second})
        assert cache.missing([one, other], (0, 1)) == [other]
        assert cache.missing([one, other], (1,)) == []
        assert dict(cache.get([one, other], 0)).keys() == {one}
        np.testing.assert_array_equal(dict(cache.get([one, other], 1, 2, 5))[other], second[2:5])
        cache.put({(one, 0): second})
        np.testing.assert_array_equal(dict(cache.get([one], 0))[one], first)  # what is there is right already


def test_vectors_of_float16_lie_beside_those_of_float32(tmp_path):
    with RowCache(tmp_path, "network") as cache:
        (one, single), (other, half) = vectors(cache, "ab").items()
        half = half.astype(np.float16)
        cache.put({(one, 0): single, (other, 0): half})
        assert cache.n_bytes == 4 * 7 + 2 * 7 + 1
        for part in (slice(None), slice(0, 3), slice(2, 7)):
            found = dict(cache.get([one, other], 0, part.start or 0, part.stop))
            assert {key: vector.dtype for key, vector in found.items()} == {one: np.float32, other: np.float16}
            np.testing.assert_array_equal(found[one], single[part])
            np.testing.assert_array_equal(found[other], half[part])


def test_a_note_is_changed_by_one_at_a_time(tmp_path):
    with RowCache(tmp_path, "network") as one, RowCache(tmp_path, "network") as other:
        assert one.change_note(lambda note: [note]) == [None]
        assert other.change_note(lambda note: [*note, 1]) == [None, 1]
        assert one.note() == [None, 1]


def ages(monkeypatch):
    """Return a function that lets an hour pass; no more room is made than has to be."""
    monkeypatch.setattr(cache_module, "_ROOM", 0.0)
    start, hours = time.time(), [0]
    monkeypatch.setattr(time, "time", lambda: start + 3600 * hours[0])

    def pass_an_hour():
        hours[0] += 1

    return pass_an_hour


def test_what_was_used_longest_ago_makes_room(tmp_path, monkeypatch):
    pass_an_hour = ages(monkeypatch)
    with RowCache(tmp_path, "network", size=10 * 28) as cache:
        stored = vectors(cache, "abcdefghij")
        for key, vector in stored.items():
            put(cache, {key: vector})
            pass_an_hour()
        keys = list(stored)
        assert cache.n_bytes == 10 * 28
        dict(cache.get(keys[:1]))
        pass_an_hour()
        put(cache, vectors(cache, "k"))
        assert cache.missing(keys) == keys[1:2]
        assert cache.n_bytes == 10 * 28


def test_the_use_of_another_process_counts(tmp_path, monkeypatch):
    pass_an_hour = ages(monkeypatch)
    with RowCache(tmp_path, "network", size=2 * 28) as cache:
        (one, first), (other, second), (third, vector) = vectors(cache, "abc").items()
        put(cache, {one: first})
        pass_an_hour()
        put(cache, {other: second})
        pass_an_hour()
        with RowCache(tmp_path, "network") as reader:
            dict(reader.get([one]))
        put(cache, {third: vector})
        assert cache.missing([one, other, third]) == [other]


def test_what_nobody_has_asked_for_goes_first(tmp_path, monkeypatch):
    pass_an_hour = ages(monkeypatch)
    with RowCache(tmp_path, "network", size=6 * 28) as cache:
        stored = vectors(cache, "abcde")
        keys = list(stored)
        for key, vector in stored.items():
            cache.put({(key, 0): vector, (key, 1): vector}, spare=[1])
            pass_an_hour()
        assert cache.missing(keys) == []
        assert cache.missing(keys, (1,)) == keys[:4]


def test_a_file_gives_back_what_a_smaller_size_frees(tmp_path):
    rng = np.random.default_rng(0)
    with RowCache(tmp_path, "network") as cache:
        many = {(cache.key(bytes([number])), 0): rng.random(20_000, dtype=np.float32) for number in range(100)}
        cache.put(many)
    (file,) = tmp_path.glob("*.sqlite")
    before = file.stat().st_size
    assert before > 100 * 80_000
    with RowCache(tmp_path, "network", size=2**21) as cache:
        new = vectors(cache, ["a new one"])
        put(cache, new)
        assert cache.n_bytes <= 2**21
        assert cache.missing(list(new)) == []
    assert file.stat().st_size < 2**21 * 1.2
    with RowCache(tmp_path, "network") as cache:
        left = dict(cache.get([key for key, _ in many]))
        assert 10 < len(left) < 26
        for key, vector in left.items():
            np.testing.assert_array_equal(vector, many[key, 0])


# Other formats --------------------------------------------------------------------------------------------------------


def test_the_file_of_an_older_version_is_left_alone_and_named(tmp_path):
    (tmp_path / "activations-1.sqlite").write_bytes(b"whatever was in it")
    with (
        pytest.warns(CacheWarning, match=r"activations-1\.sqlite' is of an older version .* not read"),
        RowCache(tmp_path, "network") as cache,
    ):
        put(cache, vectors(cache, "a"))
    assert (tmp_path / "activations-1.sqlite").read_bytes() == b"whatever was in it"


@pytest.mark.parametrize("version", [0, 3])
def test_a_data_base_of_another_format_is_refused_and_left_as_it_was(tmp_path, version):
    path = tmp_path / "activations-2.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
    other.execute(f"PRAGMA user_version = {version}")
    other.close()
    before = path.read_bytes()
    with (
        pytest.raises(OSError, match=f"has format {version}, where this version .* 2; pass another folder, or delete"),
        RowCache(tmp_path, "network"),
    ):
        pass
    assert path.read_bytes() == before


def test_a_data_base_of_another_format_is_refused_where_nothing_can_be_written_too(tmp_path, read_only):
    other = sqlite3.connect(tmp_path / "activations-2.sqlite")
    other.execute("CREATE TABLE notes (text)")
    other.close()
    read_only()
    with pytest.raises(OSError, match="has format 0"), RowCache(tmp_path, "network"):
        pass


# Where nothing can be written -----------------------------------------------------------------------------------------


@pytest.fixture(params=["mode=ro", "immutable=1"])
def read_only(request, monkeypatch):
    """Let SQLite open files as on a read-only file system; the second way is for one without files beside it."""
    connect = sqlite3.connect

    def without_writing(path, **options):
        return connect(path and f"file:{path}?mode=ro", **{**options, "uri": True})

    monkeypatch.setattr(cache_module, "_READ_ONLY", (request.param,))

    def begin():
        monkeypatch.setattr(sqlite3, "connect", without_writing)

    return begin


def test_of_a_cache_that_cannot_be_written_everything_is_read(tmp_path, read_only):
    with RowCache(tmp_path, "network") as cache:
        stored = vectors(cache, "ab")
        put(cache, stored)
        cache.change_note(lambda note: [["conv1", 64]])
    before = (tmp_path / "activations-2.sqlite").read_bytes()
    read_only()
    with (
        pytest.warns(CacheWarning, match="cannot be written .*: what is there is read") as caught,
        RowCache(tmp_path, "network") as cache,
    ):
        assert cache.note() == [["conv1", 64]]
        new = vectors(cache, "bc", seed=1)
        assert cache.claim([*stored, *new]) == [cache.key(b"c")]
        put(cache, {cache.key(b"c"): new[cache.key(b"c")]})
        found = dict(cache.get([*stored, *new]))
        np.testing.assert_array_equal(found[cache.key(b"b")], stored[cache.key(b"b")])
        np.testing.assert_array_equal(found[cache.key(b"c")], new[cache.key(b"c")])
        path = tmp_path / "picture"
        path.write_bytes(b"content")
        assert cache.digest(PictureReader(8, 8), path) == PictureReader(8, 8).digest(b"content")
        cache.remember_files()
    assert len(caught) == 1
    assert (tmp_path / "activations-2.sqlite").read_bytes() == before


def test_a_cache_that_is_being_written_is_read_with_what_is_not_yet_in_its_file_or_not_at_all(tmp_path, read_only):
    with RowCache(tmp_path, "network") as cache:
        stored = vectors(cache, "a")
        put(cache, stored)  # in a file beside the cache, until it is closed
        read_only()
        with pytest.warns(CacheWarning) as caught, RowCache(tmp_path, "network") as other:
            is_read = "what is there is read" in str(caught[0].message)
            assert is_read == (cache_module._READ_ONLY == ("mode=ro",))
            assert other.missing(list(stored)) == ([] if is_read else list(stored))


def test_a_folder_that_cannot_be_made_is_no_end(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.warns(CacheWarning, match="nothing of it can be read") as caught,
        RowCache(tmp_path / "file" / "cache", "network") as cache,
    ):
        stored = vectors(cache, "a")
        assert cache.missing(list(stored)) == list(stored)
        put(cache, stored)
        assert dict(cache.get(list(stored))).keys() == stored.keys()
    assert len(caught) == 1


def test_a_disk_that_fills_up_on_the_way_is_no_end(tmp_path):
    with RowCache(tmp_path, "network") as other:
        with RowCache(tmp_path, "network") as cache:
            first = vectors(cache, "a")
            put(cache, first)
            n_pages = cache._connection.execute("PRAGMA page_count").fetchone()[0]
            cache._connection.execute(f"PRAGMA max_page_count = {n_pages}")  # no room for more
            more = vectors(cache, [str(number) for number in range(2000)])
            with pytest.warns(CacheWarning, match="is full.*what is there is read") as caught:
                put(cache, more)
            assert len(caught) == 1
            assert dict(cache.get([*first, *more])).keys() == first.keys() | more.keys()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                put(cache, vectors(cache, "b"))
        assert dict(other.get([*first, *more])).keys() == first.keys()


def test_a_cache_that_another_process_holds_too_long_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_WAIT_S", 0.05)
    with RowCache(tmp_path, "network") as cache:
        other = sqlite3.connect(tmp_path / "activations-2.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match=r"cannot use the cache .*activations-2\.sqlite': database is locked"):
            put(cache, vectors(cache, "a"))
        other.close()


def test_a_cache_that_another_process_is_making_is_waited_for(tmp_path, monkeypatch):
    other = sqlite3.connect(tmp_path / "activations-2.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA user_version = 0")  # writes the first page: of an empty file SQLite waits by itself
    other.execute("BEGIN IMMEDIATE")
    ended = Timer(0.3, other.rollback)
    ended.start()
    with RowCache(tmp_path, "network") as cache:
        assert ended.finished.is_set()
        put(cache, vectors(cache, "a"))
    monkeypatch.setattr(cache_module, "_WAIT_S", 0.05)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OSError, match="database is locked"), RowCache(tmp_path, "network"):
        pass
    other.close()


# Names of files -------------------------------------------------------------------------------------------------------


def test_a_path_through_a_link_is_that_of_the_system(tmp_path, monkeypatch):
    (tmp_path / "far" / "folder").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "folder")
    written_long_ago(tmp_path / "x.png", b"here")
    written_long_ago(tmp_path / "far" / "x.png", b"far")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LONG_AGO_S)
    monkeypatch.chdir(tmp_path)
    reader = PictureReader(8, 8)
    with RowCache(tmp_path / "cache", "network") as cache:
        for _ in range(2):
            assert cache.digest(reader, "x.png") == reader.digest(b"here")
            assert cache.digest(reader, "link/../x.png") == reader.digest(b"far")
            cache.remember_files()


def test_names_that_are_no_text_are_remembered(tmp_path, monkeypatch):
    path = os.fsencode(tmp_path) + b"/\xff.png"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"content")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LONG_AGO_S)
    reader = CountingReader(8, 8)
    with RowCache(tmp_path / "cache", "network") as cache:
        for _ in range(2):
            cache.digest(reader, Path(os.fsdecode(path)))
            cache.remember_files()
    assert len(counts) == 1
