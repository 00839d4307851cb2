import os
import time
from pathlib import Path

import numpy as np
import pytest

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images import PictureReader, RowCache

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


def written_long_ago(path, content):
    path.write_bytes(content)
    then = time.time() - LONG_AGO_S
    os.utime(path, (then, then))


def test_vectors_come_back_exactly_in_another_process_of_the_same_configuration(tmp_path):
    with RowCache(tmp_path, "network") as cache:
        stored = vectors(cache, "abc")
        cache.put(stored)
    with RowCache(tmp_path, "network") as cache:
        found = cache.get(list(stored))
        assert found.keys() == stored.keys()
        for key, vector in stored.items():
            np.testing.assert_array_equal(found[key], vector)
        assert cache.missing([*stored, b"x" * 32, b"x" * 32]) == [b"x" * 32]


def test_other_configurations_have_other_keys(tmp_path):
    with RowCache(tmp_path, "one") as one, RowCache(tmp_path, "other") as other:
        one.put(vectors(one, "a"))
        assert other.missing([other.key(b"a")])


def test_many_keys_are_looked_up_at_once(tmp_path):
    with RowCache(tmp_path, "network") as cache:
        stored = vectors(cache, [str(number) for number in range(1203)])
        cache.put(stored)
        assert cache.missing(list(stored)) == []
        assert len(cache.get(list(stored))) == 1203


def test_notes_are_kept_for_each_configuration(tmp_path):
    with RowCache(tmp_path, "network") as cache:
        assert cache.note() is None
        cache.set_note([["conv1", 64]])
    with RowCache(tmp_path, "network") as cache, RowCache(tmp_path, "other") as other:
        assert cache.note() == [["conv1", 64]]
        assert other.note() is None


def test_what_one_process_claims_no_other_computes(tmp_path):
    with RowCache(tmp_path, "network") as one, RowCache(tmp_path, "network") as other:
        keys = [one.key(bytes([number])) for number in range(4)]
        assert one.claim(keys[:3]) == keys[:3]
        assert other.claim(keys) == keys[3:]
        one.put({keys[0]: np.zeros(7, dtype=np.float32)})
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
            cache.put(stored)
        assert cache.missing(list(stored)) == list(stored)
        cache.put(stored)
        assert cache.missing(list(stored)) == []
