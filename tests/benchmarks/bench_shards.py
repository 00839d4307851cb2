"""`embed_shards` against one `transform` of the same pictures: what shards cost, from files, archives and Parquet.

Drawn scenes, saved as JPEGs of 500 x 375 pixels (or photographs, with --folder), seen by the full network; all take
turns in one process. Beside them the rates that `sklearn_mm.scaling.capacity` asks for: reading and decoding alone, the
network alone on arrays in memory, a ranker over vectors; and the bytes of a vector in its shard.

    python tests/benchmarks/bench_shards.py --images 512 --out shards.json
"""

import io
import tarfile
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import bench
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import FullNetworkEmbedding, find_unreadable
from sklearn_mm.retrieval import JointEmbeddingRanker
from sklearn_mm.scaling import ParquetColumn, Rates, capacity, embed_shards

SIZE_PX = (500, 375)


def pictures_of(options, folder):
    if options.folder is not None:
        return sorted(Path(options.folder).rglob("*.jpg"))[: options.images]
    folder = folder / "jpegs"
    folder.mkdir()
    scenes = make_captioned_shapes(options.images, image_size=SIZE_PX[0], random_state=0)
    for number, image in enumerate(scenes.images):
        Image.fromarray(image[: SIZE_PX[1]]).save(folder / f"{number:05d}.jpg", quality=90)
    return sorted(folder.iterdir())


def packed(paths, folder):
    """Write the pictures into an archive and into a Parquet file."""
    with tarfile.open(folder / "pictures.tar", "w") as archive:
        for path in paths:
            info = tarfile.TarInfo(path.name)
            info.size = path.stat().st_size
            archive.addfile(info, io.BytesIO(path.read_bytes()))
    table = pa.table({"image": [path.read_bytes() for path in paths]})
    pq.write_table(table, folder / "pictures.parquet", row_group_size=256)
    return folder / "pictures.tar", ParquetColumn(folder / "pictures.parquet", "image")


def rate(n_items, run):
    start = time.perf_counter()
    run()
    return n_items / (time.perf_counter() - start)


def main():
    parser = bench.parser(__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--layers", default="auto")
    parser.add_argument("--folder", help="of JPEG files, instead of drawn scenes")
    options = parser.parse_args()
    records = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = pictures_of(options, folder)
        archive, column = packed(paths, folder)
        for n_threads in bench.thread_counts():
            with bench.threads(n_threads):
                records.append(measure(options, folder, paths, archive, column))
    bench.save(records, options.out)


def measure(options, folder, paths, archive, column):
    embedding = FullNetworkEmbedding(options.backbone, layers=options.layers).fit(paths[:64])

    def shards(source, **parameters):
        return lambda: embed_shards(
            embedding, source, folder / "sink", resume=False, shard_size=len(paths) // 2, **parameters
        )

    runs = {
        "transform": lambda: embedding.transform(paths),
        "shards of files": shards(paths),
        "shards of files, .npy": shards(paths, format="npy"),
        "shards of an archive": shards(archive),
        "shards of a Parquet column": shards(column),
    }
    seconds = bench.interleave(runs, options.turns)
    manifest = shards(paths)()
    n_bytes = sum(file.n_bytes for shard in manifest.shards for file in shard.files)
    arrays = [np.asarray(Image.open(path).convert("RGB").resize((224, 224))) for path in paths[:128]]
    vectors = embedding.transform(arrays)
    captions = make_captioned_shapes(len(vectors), image_size=16, random_state=0).captions
    ranker = JointEmbeddingRanker(n_components=1024, max_epochs=1, random_state=0).fit(vectors, captions)
    many = np.tile(vectors, (16, 1))
    rates = Rates(
        decode=rate(len(paths), lambda: find_unreadable(paths)),
        network=rate(len(arrays), lambda: embedding.transform(arrays)),
        project=rate(len(many), lambda: ranker.transform(many)),
        scores=scores_a_second(),
        picture_bytes=float(np.mean([path.stat().st_size for path in paths])),
        stored_bytes=n_bytes / manifest.n_rows,
        n_components=1024,
    )
    record = bench.report(
        f"{len(paths)} pictures, {options.backbone}, {manifest.n_features} columns of {manifest.dtype}",
        seconds,
        against="transform",
        targets=dict.fromkeys(list(runs)[1:], ("<=", 1.05)),
        rates={name: float(f"{value:.3g}") for name, value in vars(rates).items()},
    )
    for n_pictures in (10**7, 10**9):
        print(capacity(n_pictures, rates))
    return record


def scores_a_second(n_items=65_536, n_queries=1000, n_components=1024):
    items, queries = torch.randn(n_items, n_components), torch.randn(n_queries, n_components)
    out = torch.empty(n_queries, n_items)
    torch.matmul(queries[:16], items[:16].T)
    return rate(n_items * n_queries, lambda: torch.matmul(queries, items.T, out=out))


if __name__ == "__main__":
    main()
