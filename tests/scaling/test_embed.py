"""Embedding shard by shard: the same rows as at once, whatever the source and whatever happens on the way."""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_mm.exceptions import ImageReadError, ImageReadWarning, ShardWarning
from sklearn_mm.features import TextNGramEncoder
from sklearn_mm.scaling import Manifest, ParquetColumn, _work, embed_shards
from tests.scaling.pictures import all_of, embedding, encoded, write_folder, write_parquet, write_tars

N = 23


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Let a shard have several blocks."""
    monkeypatch.setattr(_work, "BLOCK_ROWS", 4)


@pytest.fixture(scope="module")
def fitted():
    return embedding().fit([encoded(number) for number in range(N)])


@pytest.fixture(scope="module")
def expected(fitted):
    return fitted.transform([encoded(number) for number in range(N)])


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", N)


# Sources and formats --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_format", ["parquet", "npy"])
@pytest.mark.parametrize("shard_size", [3, 10, 100])
def test_shards_hold_the_rows_that_transform_gives(fitted, expected, photos, tmp_path, shard_format, shard_size):
    manifest = embed_shards(fitted, photos, tmp_path / "sink", shard_size=shard_size, format=shard_format)
    rows, ids, vectors = all_of(manifest)
    np.testing.assert_array_equal(rows, np.arange(N))
    assert ids == [f"{number:03d}.png" for number in range(N)]
    assert vectors.dtype == np.int8
    np.testing.assert_array_equal(vectors, expected)
    assert len(manifest.shards) == -(-N // shard_size)
    assert manifest.complete
    assert not manifest.verify()


def _sources(tmp_path, kind):
    if kind == "pattern":
        write_folder(tmp_path / "photos", N)
        return f"{tmp_path}/photos/*.png", [f"{tmp_path}/photos/{number:03d}.png" for number in range(N)]
    if kind == "list":
        folder = write_folder(tmp_path / "photos", N)
        paths = [folder / f"{number:03d}.png" for number in range(N)]
        return paths, [str(path) for path in paths]
    if kind == "archives":
        return f"{write_tars(tmp_path / 'tars', N, 4)}/*.tar", [f"{number:03d}" for number in range(N)]
    if kind == "archive":
        return write_tars(tmp_path / "tars", N, 1) / "00.tar", [f"{number:03d}" for number in range(N)]
    folder = write_parquet(tmp_path / "table", N, 3, kind="mapping" if kind == "mappings" else "bytes")
    names = [f"{number:03d}" for number in range(N)]
    if kind == "column":
        counts = np.bincount([place for place, share in enumerate(np.array_split(range(N), 3)) for _ in share])
        return ParquetColumn(folder, "image"), [
            f"{place:02d}.parquet:{row}" for place in range(3) for row in range(counts[place])
        ]
    return ParquetColumn([*sorted(folder.iterdir())], "image", ids="name"), names


@pytest.mark.parametrize("kind", ["pattern", "list", "archives", "archive", "column", "column with ids", "mappings"])
@pytest.mark.parametrize("shard_size", [5, 100])
def test_every_source_gives_the_same_vectors_with_its_own_ids(fitted, expected, tmp_path, kind, shard_size):
    source, names = _sources(tmp_path, kind)
    manifest = embed_shards(fitted, source, tmp_path / "sink", shard_size=shard_size)
    rows, ids, vectors = all_of(manifest)
    np.testing.assert_array_equal(rows, np.arange(N))
    assert ids == names
    np.testing.assert_array_equal(vectors, expected)


def test_floats_come_back_as_float32(photos, tmp_path):
    paths = sorted(photos.iterdir())
    floats = embedding(discretize=False).fit(paths)
    for shard_format in ("parquet", "npy"):
        manifest = embed_shards(floats, photos, tmp_path / shard_format, shard_size=9, format=shard_format)
        assert manifest.dtype == "float32"
        # as near as a network's answers are: some processors add in another order in another batch
        np.testing.assert_allclose(all_of(manifest)[2], floats.transform(paths), rtol=1e-5, atol=1e-6)


def test_the_manifest_says_what_is_where(fitted, photos, tmp_path):
    manifest = embed_shards(fitted, photos, tmp_path / "sink", shard_size=10)
    known = json.loads((tmp_path / "sink" / "manifest.json").read_text())
    assert (known["n_rows"], known["n_features"], known["dtype"], known["complete"]) == (N, 20, "int8", True)
    assert known["transformer"]["class"] == "FullNetworkEmbedding"
    assert manifest == Manifest.open(tmp_path / "sink")
    frame = manifest.to_frame()
    assert frame["n_rows"].tolist() == [10, 10, 3]
    assert frame["start"].tolist() == [0, 10, 20]
    assert all(len(file.sha256) == 64 and file.n_bytes for shard in manifest.shards for file in shard.files)
    assert sorted(path.name for path in (tmp_path / "sink").iterdir()) == [
        ".lock",
        "manifest.json",
        *(f"part-{number:06d}.parquet" for number in range(3)),
    ]


def test_texts_are_embedded_from_lists_and_columns(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"a {word} on the {place}" for word in ("dog", "cat", "bird") for place in ("roof", "street", "tree")]
    encoder = TextNGramEncoder(n_components=8, random_state=0).fit(texts)
    pq.write_table(pa.table({"caption": texts}), tmp_path / "captions.parquet")
    for name, source in (("list", texts), ("column", ParquetColumn(tmp_path / "captions.parquet", "caption"))):
        for transformer in (encoder, FunctionTransformer(encoder.transform)):
            manifest = embed_shards(transformer, source, tmp_path / name, shard_size=4, resume=False)
            np.testing.assert_allclose(all_of(manifest)[2], encoder.transform(texts), rtol=1e-5, atol=1e-6)


# Bad pictures ---------------------------------------------------------------------------------------------------------

BAD = (0, 7, 20, 21, 22)
GOOD = np.setdiff1d(np.arange(N), BAD)


@pytest.mark.parametrize("kind", ["folder", "archives"])
@pytest.mark.parametrize("is_pipeline", [False, True])
def test_bad_pictures_are_left_out_and_listed(fitted, expected, tmp_path, kind, is_pipeline):
    folder = write_folder(tmp_path / "photos", N, BAD)
    source = folder if kind == "folder" else f"{write_tars(tmp_path / 'tars', N, 3, BAD)}/*.tar"
    transformer = make_pipeline(fitted, PCA(3).fit(expected)) if is_pipeline else fitted
    with pytest.warns(ImageReadWarning, match="5 of 23"):
        manifest = embed_shards(transformer, source, tmp_path / "sink", shard_size=10)
    assert fitted.on_error == "raise"
    rows, _, vectors = all_of(manifest)
    np.testing.assert_array_equal(rows, GOOD)
    wanted = transformer[-1].transform(expected[GOOD]) if is_pipeline else expected[GOOD]
    np.testing.assert_allclose(vectors, wanted, rtol=1e-5, atol=1e-6)
    suffix = ".png" if kind == "folder" else ""
    assert [(row, name) for row, name, _ in manifest.failures] == [(row, f"{row:03d}{suffix}") for row in BAD]
    assert all("not a picture" in reason for _, _, reason in manifest.failures)
    # the last shard has a single bad block, and the second call nothing left to do and nothing to warn of
    assert embed_shards(transformer, source, tmp_path / "sink", shard_size=10) == manifest


@pytest.mark.parametrize("is_pipeline", [False, True])
def test_a_bad_picture_ends_the_run_where_that_is_asked_for(fitted, expected, tmp_path, is_pipeline):
    folder = write_folder(tmp_path / "photos", N, BAD[1:])
    transformer = make_pipeline(fitted, StandardScaler().fit(expected)) if is_pipeline else fitted
    with pytest.raises(ImageReadError, match=r"row 7 \(007.png\): not a picture.*on_error='skip'"):
        embed_shards(transformer, folder, tmp_path / "sink", shard_size=5, on_error="raise")
    assert [shard.number for shard in _records(tmp_path / "sink")] == [0]


def test_a_source_of_which_nothing_can_be_read_is_an_error(fitted, tmp_path):
    folder = write_folder(tmp_path / "photos", 3, range(3))
    with pytest.raises(ImageReadError, match="not one of 3 pictures"):
        embed_shards(fitted, folder, tmp_path / "sink", shard_size=2)
    assert len(Manifest.open(tmp_path / "sink").failures) == 3


def _records(sink):
    from sklearn_mm.scaling._sink import ShardFolder

    return ShardFolder(Path(sink)).records()


# Stopped and gone on --------------------------------------------------------------------------------------------------


class Counting(FunctionTransformer):
    """Counts calls, and fails at one of them."""

    n_calls, fails_at = 0, None

    def transform(self, X):
        type(self).n_calls += 1
        if type(self).n_calls == type(self).fails_at:
            raise RuntimeError("stopped")
        return np.array([[len(Path(path).read_bytes())] for path in X], dtype=np.float32)


def test_a_run_that_failed_goes_on_without_doing_a_shard_again(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(_work, "BLOCK_ROWS", 100)
    monkeypatch.setattr(Counting, "n_calls", 0)
    monkeypatch.setattr(Counting, "fails_at", 3)
    with pytest.raises(RuntimeError, match="stopped"):
        embed_shards(Counting(), photos, tmp_path / "sink", shard_size=5)
    assert not Manifest.open(tmp_path / "sink").complete
    monkeypatch.setattr(Counting, "fails_at", None)
    manifest = embed_shards(Counting(), photos, tmp_path / "sink", shard_size=5)
    assert Counting.n_calls == 3 + 3  # two done, one failed; three were left
    np.testing.assert_array_equal(all_of(manifest)[0], np.arange(N))
    embed_shards(Counting(), photos, tmp_path / "sink", shard_size=5)
    assert Counting.n_calls == 6
    embed_shards(Counting(), photos, tmp_path / "sink", shard_size=5, resume=False)
    assert Counting.n_calls == 11


class Slow(FunctionTransformer):
    """Takes its time, in which it can be killed."""

    def transform(self, X):
        time.sleep(0.01)
        return np.array([[len(path)] for path in X], dtype=np.int8)


KILLED_ROWS = [f"{row:04d}" + "x" * (row % 7) for row in range(400)]


def check_nothing_is_lost_or_doubled(sink):
    manifest = Manifest.open(sink)
    assert manifest.complete
    assert not manifest.verify()
    rows, ids, vectors = all_of(manifest)
    np.testing.assert_array_equal(rows, np.arange(400))
    assert ids == KILLED_ROWS
    np.testing.assert_array_equal(vectors[:, 0], [len(row) for row in KILLED_ROWS])
    assert len(list(sink.iterdir())) == 2 + 40  # the lock, the manifest, and the shards


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # it uses none of the threads
@pytest.mark.parametrize("n_kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_goes_on_with_nothing_lost_or_doubled(tmp_path, n_kills):
    rng = np.random.default_rng(0)
    n_killed = 0
    while True:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                embed_shards(Slow(), KILLED_ROWS, tmp_path / "sink", shard_size=10)
                code = 0
            finally:
                os._exit(code)
        if n_killed < n_kills:
            time.sleep(rng.uniform(0, 0.6 / n_kills))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        n_killed += 1
    assert n_killed == n_kills
    check_nothing_is_lost_or_doubled(tmp_path / "sink")


def test_a_run_that_was_killed_before_its_manifest_was_there_is_no_other_folder(tmp_path):
    for name in (".writing", "records"):
        (tmp_path / "sink" / name).mkdir(parents=True)
    (tmp_path / "sink" / ".writing" / "half a manifest").write_text("{")
    (tmp_path / "sink" / ".lock").touch()
    assert embed_shards(Slow(), ["a", "b"], tmp_path / "sink").complete


def test_a_shard_that_was_half_written_or_lost_is_written_again(fitted, expected, photos, tmp_path):
    sink = tmp_path / "sink"
    embed_shards(fitted, photos, sink, shard_size=5)
    broken = sink / "part-000001.parquet"
    broken.write_bytes(broken.read_bytes()[:-10])
    (sink / "part-000003.parquet").unlink()
    with pytest.warns(ShardWarning) as told:
        manifest = embed_shards(fitted, photos, sink, shard_size=5)
    assert [re for each in told for re in str(each.message).split() if re.startswith("'part")] == [
        "'part-000001.parquet'",
        "'part-000003.parquet'",
    ]
    assert not manifest.verify()
    np.testing.assert_array_equal(all_of(manifest)[2], expected)


def test_verify_names_a_shard_whose_content_has_changed(fitted, photos, tmp_path):
    manifest = embed_shards(fitted, photos, tmp_path / "sink", shard_size=5, format="npy")
    broken = tmp_path / "sink" / "part-000002.npy"
    content = bytearray(broken.read_bytes())
    content[-1] ^= 1
    broken.write_bytes(content)
    assert manifest.verify() == ["part-000002.npy"]


def test_two_runs_at_once_refuse(fitted, photos, tmp_path):
    class Again(Counting):
        def transform(self, X):
            with pytest.raises(BlockingIOError, match=rf"another run \(process {os.getpid()} on .*another sink"):
                embed_shards(fitted, photos, tmp_path / "sink")
            return super().transform(X)

    assert embed_shards(Again(), photos, tmp_path / "sink").complete
    assert embed_shards(Again(), photos, tmp_path / "sink").complete  # the lock is given back


def test_a_full_disk_leaves_what_is_finished_valid(photos, tmp_path):
    class Wide(FunctionTransformer):
        width = 10

        def transform(self, X):
            type(self).width *= 10
            return np.zeros((len(X), 10 if type(self).width < 10_000 else 10_000), dtype=np.float32)

    sink = tmp_path / "sink"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"shard 2 cannot be written \(File too large\).*goes on from there"):
            embed_shards(Wide(), photos, sink, shard_size=4, format="npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [shard.number for shard in _records(sink)] == [0, 1]
    assert all(file.is_whole(sink, digest=True) for shard in _records(sink) for file in shard.files)
    assert sorted(path.name for path in sink.iterdir() if path.is_dir()) == ["records"]


# What does not belong together ----------------------------------------------------------------------------------------


def test_shards_of_another_model_source_or_size_are_not_gone_on_with(fitted, photos, tmp_path):
    sink = tmp_path / "sink"
    embed_shards(fitted, photos, sink, shard_size=5)
    other = embedding().fit([encoded(number) for number in range(5)])
    with pytest.raises(ValueError, match="another transformer: its parameters, or what it has learnt.*resume=False"):
        embed_shards(other, photos, sink, shard_size=5)
    with pytest.raises(ValueError, match="another transformer"):
        embed_shards(embedding(thresholds=(-1, 1)).fit(sorted(photos.iterdir())), photos, sink, shard_size=5)
    with pytest.raises(ValueError, match="another class"):
        embed_shards(FunctionTransformer(), photos, sink, shard_size=5)
    with pytest.raises(ValueError, match=r"another shard_size \(5, now 6\)"):
        embed_shards(fitted, photos, sink, shard_size=6)
    with pytest.raises(ValueError, match="another format"):
        embed_shards(fitted, photos, sink, shard_size=5, format="npy")
    (photos / "900.png").write_bytes(encoded(900))
    with pytest.raises(ValueError, match=r"another number of rows \(23, now 24\)"):
        embed_shards(fitted, photos, sink, shard_size=5)
    (photos / "022.png").unlink()
    with pytest.raises(ValueError, match="another source"):
        embed_shards(fitted, photos, sink, shard_size=5)


def test_what_decides_on_nothing_may_change_in_between(fitted, photos, tmp_path):
    import pickle

    manifest = embed_shards(fitted, photos, tmp_path / "sink", shard_size=5)
    opened = pickle.loads(pickle.dumps(fitted)).set_params(n_jobs=2, verbose=1, on_error="nan")
    assert embed_shards(opened, photos, tmp_path / "sink", shard_size=5, on_error="raise") == manifest


def test_another_version_is_refused(fitted, photos, tmp_path):
    sink = tmp_path / "sink"
    embed_shards(fitted, photos, sink, shard_size=5)
    known = json.loads((sink / "manifest.json").read_text())

    def rewrite(**changes):
        (sink / "manifest.json").write_text(json.dumps({**known, **changes}))

    rewrite(versions={"sklearn_mm": "0.0.1"})
    with pytest.raises(ValueError, match=r"another version of sklearn_mm \(0.0.1, now"):
        embed_shards(fitted, photos, sink, shard_size=5)
    rewrite(format_version=99)
    with pytest.raises(ValueError, match="of format 99, this version of sklearn_mm reads up to 1"):
        embed_shards(fitted, photos, sink, shard_size=5)
    (sink / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json is damaged"):
        embed_shards(fitted, photos, sink, shard_size=5)


def test_a_folder_of_something_else_is_no_sink(fitted, photos):
    with pytest.raises(FileExistsError, match="holds '000.png' and no manifest.json"):
        embed_shards(fitted, photos, photos)


# Sources that are none ------------------------------------------------------------------------------------------------


def test_a_source_without_pictures_says_what_was_looked_for(fitted, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "._001.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no file in .*empty' or below it ends with .avif, .bmp"):
        embed_shards(fitted, empty, tmp_path / "sink")
    with pytest.raises(ValueError, match="an empty list"):
        embed_shards(fitted, [], tmp_path / "sink")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        embed_shards(fitted, tmp_path / "absent", tmp_path / "sink")
    with pytest.raises(FileNotFoundError, match="no file fits the pattern"):
        embed_shards(fitted, str(tmp_path / "*.jpg"), tmp_path / "sink")
    tars = write_tars(tmp_path / "tars", 2, 1)
    with pytest.raises(ValueError, match=r"it holds '00.tar': pass '.*tars/\*.tar'"):
        embed_shards(fitted, tars, tmp_path / "sink")
    table = write_parquet(tmp_path / "table", 2, 1)
    with pytest.raises(ValueError, match=r"which column of '.*00.parquet'\? Pass ParquetColumn"):
        embed_shards(fitted, table / "00.parquet", tmp_path / "sink")
    with pytest.raises(ValueError, match="no column 'picture', but 'name', 'image'"):
        embed_shards(fitted, ParquetColumn(table, "picture"), tmp_path / "sink")
    with pytest.raises(TypeError, match=r"path in each row of the source, got a bytes in row 0.*transform takes it"):
        embed_shards(fitted, [b"bytes"], tmp_path / "sink")
    assert not (tmp_path / "sink").exists()


def test_an_archive_that_was_cut_off_is_named(fitted, tmp_path):
    archive = write_tars(tmp_path / "tars", 4, 1) / "00.tar"
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(OSError, match=r"cannot read the archive '.*00.tar'.*is it complete"):
        embed_shards(fitted, archive, tmp_path / "sink")


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"shard_size": 0}, "shard_size must be an int of at least 1, got 0"),
        ({"engine": "spark"}, "engine must be 'local' or 'ray', got 'spark'"),
        ({"on_error": "nan"}, "on_error must be 'skip' or 'raise', got 'nan'"),
        ({"format": "csv"}, "format must be 'parquet' or 'npy', got 'csv'"),
    ],
)
def test_parameters_are_checked(fitted, photos, tmp_path, parameters, match):
    with pytest.raises(ValueError, match=match):
        embed_shards(fitted, photos, tmp_path / "sink", **parameters)


def test_a_transformer_that_is_not_fitted_or_gives_no_rows_is_refused(photos, tmp_path):
    with pytest.raises(NotFittedError):
        embed_shards(embedding(), photos, tmp_path / "sink")
    with pytest.raises(ValueError, match=r"expected an array of 4 rows of the transformer, got one of shape \(1, 4\)"):
        embed_shards(FunctionTransformer(lambda X: [list(map(len, X))]), photos, tmp_path / "sink")


def test_without_pyarrow_the_way_out_is_named(fitted, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn-mm\[ray\]'.*format='npy'"):
        embed_shards(fitted, photos, tmp_path / "sink")
    assert embed_shards(fitted, photos, tmp_path / "other", format="npy").n_rows == N


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["archives", "column"])
def test_memory_does_not_grow_with_the_pictures(tmp_path, monkeypatch, kind):
    import tracemalloc

    monkeypatch.setattr(_work, "BLOCK_ROWS", 16)

    def peak(n_pictures):
        if kind == "archives":
            source = f"{write_tars(tmp_path / f'tars {n_pictures}', n_pictures, 2)}/*.tar"
        else:
            source = ParquetColumn(write_parquet(tmp_path / f"table {n_pictures}", n_pictures, 2), "image")
        wide = FunctionTransformer(lambda X: np.zeros((len(X), 4000), dtype=np.float32))
        tracemalloc.start()
        try:
            embed_shards(wide, source, tmp_path / f"sink {n_pictures}", shard_size=50, format="npy")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(20)  # what is imported once
    few, many = peak(100), peak(400)
    assert many < 1.1 * few
    assert many < 400 * 4000 * 4 / 4  # of what all vectors take
