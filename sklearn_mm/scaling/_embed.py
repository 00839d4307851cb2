"""Embed more pictures than fit into memory, and go on where a run was stopped."""

import os
from typing import Any

from sklearn.utils.validation import check_is_fitted

from sklearn_mm.scaling._manifest import Manifest
from sklearn_mm.scaling._open import Source, open_source
from sklearn_mm.scaling._run import check_choice, check_run, header_of, run_shards, running_on
from sklearn_mm.scaling._sink import ShardFolder, Sink
from sklearn_mm.scaling._work import EmbedShard
from sklearn_mm.scaling._writers import SHARD_FORMATS

__all__ = ["embed_shards"]


def embed_shards(
    transformer: Any,
    source: Source,
    sink: str | os.PathLike[str],
    *,
    shard_size: int = 10_000,
    resume: bool = True,
    engine: str = "local",
    on_error: str = "skip",
    format: str = "parquet",
    verbose: int = 0,
) -> Manifest:
    """Embed pictures into shards on disk, and go on where a run was stopped.

    Parameters
    ----------
    transformer : estimator
        Fitted, with `transform`: an encoder of pictures, a ranker, a pipeline that begins with either.
    source : path, list of paths, or ParquetColumn
        - A folder: the pictures in it and below it, by the endings of their names, in the order of these. A name is
          the id of its row.
        - A pattern (``"photos/**/*.jpg"``) or a list of paths.
        - Tar archives as WebDataset has them (``"shards/*.tar"``): their pictures one after the other, with their keys
          as ids.
        - `ParquetColumn`: a column of paths or of the bytes of files.

        Texts are embedded likewise, given as a list or in a `ParquetColumn`: see Notes.
    sink : path
        A folder for the shards and their manifest; made if it is not there.
    shard_size : int, default=10_000
        Rows of the source in a shard, which is the most that is lost when a run is stopped.
    resume : bool, default=True
        Whether to go on with what is there. False removes the shards of an earlier run, whatever wrote them.
    engine : {"local", "ray"}, default="local"
        "local": shard by shard in this process. "ray": in the workers of Ray, by Ray Data
        (``pip install 'sklearn-mm[ray]'``); source and sink have to be where all of its machines see them. Both write
        the same bytes.
    on_error : {"skip", "raise"}, default="skip"
        Whether a picture that cannot be read is left out and noted in the manifest, or ends the run.
    format : {"parquet", "npy"}, default="parquet"
        Of a shard: one Parquet file with "row", "id" and "embedding", whose int8 are bytes of a fixed number and whose
        floats are lists of one; or an array that can be memory-mapped, with rows and ids beside it.
    verbose : int, default=0
        Whether to show a progress bar.

    Returns
    -------
    Manifest
        It is in the sink too, as "manifest.json".

    Raises
    ------
    FileNotFoundError
        The source is not there, or nothing fits its pattern.
    ValueError
        The source holds no pictures; what is in the sink was written by another transformer, from another source, with
        other parameters or by another version of this library; or the transformer answers with arrays of several
        widths.
    FileExistsError
        The sink holds something else.
    BlockingIOError
        Another run writes to the sink.
    ImageReadError
        Not one picture could be read; under ``on_error="raise"``, some could not.
    OSError
        A shard cannot be written: the disk is full. Those that are finished stay valid.
    ImportError
        pyarrow, or Ray, is not installed.

    Warns
    -----
    ImageReadWarning
        Pictures were left out.
    ShardWarning
        A shard that was finished is missing, or not of the size it had: it is written again.

    See Also
    --------
    fit_shards : Learns the statistics of an embedding from as many pictures.

    Notes
    -----
    A shard is written beside its place, its checksum taken, moved there and only then noted as done; so a run that is
    killed at any moment goes on without a row lost or doubled. What a run may go on with is decided by a fingerprint of
    the transformer (all parameters that decide on its answer, and all it has learnt), the names and sizes of the files
    of the source, `shard_size`, `format` and the version of this library; neither by the engine nor by threads,
    devices and caches.

    **Memory** is that of the transformer, of the vectors of 1,024 rows and, of archives and Parquet files, of 3,072
    encoded pictures: it does not grow with the source. Of a folder, a pattern or a list the paths are held, some 100
    bytes for each; beyond some ten million pictures pack them into archives. Archives are counted first: by the headers
    of their members, where they are not compressed.

    **Texts.** A transformer of texts embeds a list of texts, or a `ParquetColumn` of them. The text side of a ranker
    is ``FunctionTransformer(ranker.transform_text)``.

    **Pictures that cannot be read** are found by the transformer itself, if it has `on_error`. Before any other, such
    as a pipeline, pictures are decoded once more from the first block on that has a bad one.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from sklearn_mm.features import FullNetworkEmbedding
    >>> from sklearn_mm.scaling import embed_shards
    >>> temporary = TemporaryDirectory()
    >>> photos = Path(temporary.name) / "photos"
    >>> photos.mkdir()
    >>> for shade in range(6):
    ...     Image.new("RGB", (32, 32), (40 * shade, 0, 0)).save(photos / f"{shade}.png")
    >>> embedding = FullNetworkEmbedding("resnet18", weights=None, image_size=32, layers="last")
    >>> embedding = embedding.fit([str(photos / "0.png"), str(photos / "5.png")])
    >>> manifest = embed_shards(embedding, photos, Path(temporary.name) / "embedded", shard_size=4, format="npy")
    >>> manifest.n_rows, len(manifest.shards), manifest.complete
    (6, 2, True)
    >>> temporary.cleanup()
    """
    check_run(shard_size, engine, on_error)
    check_choice("format", format, SHARD_FORMATS)
    check_is_fitted(transformer)
    rows = open_source(source)
    header = header_of("embed_shards", transformer, rows, shard_size, format)
    with Sink(sink, header, resume) as opened:
        work = EmbedShard(
            running_on(engine, transformer), rows, ShardFolder(opened.folder), shard_size, format, on_error
        )
        return run_shards(opened, rows, shard_size, work, transformer=transformer, engine=engine, verbose=verbose)
