"""Seconds of `FullNetworkEmbedding.transform` over pictures seen before, whatever layers are asked for.

The cache is filled by one pass. Then other sets of layers, read from it, take turns with reading all layers as they
were kept before there were layers in the cache: one vector a picture in a table of SQLite. Of `transform` that leaves
the names by which pictures are known, looking them up, and the discretising, so both are measured: reading alone, and
`transform` whole. The pass that fills the cache is timed against one without a cache, as it reads and writes more.

    python tests/benchmarks/bench_cache.py --n-images 500 --out cache.json
"""

import itertools
import sqlite3
import tempfile
from pathlib import Path

import bench
import numpy as np

from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.features._layer_cache import LayerCache
from sklearn_mm.images import Pictures, RowCache

CHOICES = {
    "all layers": {},
    "behind their activation": {"activation": "post"},
    "the last 20 layers": {"layers": 20},
    "the last layer alone": {"layers": "last"},
    "every second block": {"layers": r".*[02468]\..*"},
    "all layers, other thresholds": {"thresholds": (-0.5, 0.5)},
}
BATCH_SIZE = 32


def stored_as_before(path, activations, keys):
    """Write vectors as they were stored before layers were; return a function that reads them as then."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
    rows = [(key, row.data) for key, row in zip(keys, activations, strict=True)]
    connection.executemany("INSERT INTO vectors VALUES (?, ?)", rows)

    def read():
        for start in range(0, len(keys), BATCH_SIZE):
            some = keys[start : start + BATCH_SIZE]
            question = f"SELECT key, value FROM vectors WHERE key IN ({','.join('?' * len(some))})"
            found = {bytes(key): np.frombuffer(value, dtype="<f4") for key, value in connection.execute(question, some)}
            np.stack([found[key] for key in some])

    return read


def reading(cache, keys):
    """Return a function that reads the layers of an open cache."""

    def read():
        block = np.empty((BATCH_SIZE, cache.width), dtype=np.float32)
        for start in range(0, len(keys), BATCH_SIZE):
            some = keys[start : start + BATCH_SIZE]
            if cache.get(some, block[: len(some)]):
                raise RuntimeError("the cache has lost a picture")

    return read


def main():
    """Read the command line, measure."""
    options = bench.parser(__doc__)
    options.add_argument("--backbone", default="efficientnet_lite0")
    options.add_argument("--n-images", type=int, default=500)
    options.add_argument("--image-size", type=int, default=None)
    options = options.parse_args()
    side = options.image_size or 224
    images = np.random.default_rng(0).integers(256, size=(options.n_images, side, side, 3), dtype=np.uint8)
    weights = "default" if options.backbone.startswith("efficientnet_lite") else None
    network = {"weights": weights, "image_size": options.image_size, "batch_size": BATCH_SIZE}
    records = []
    with tempfile.TemporaryDirectory() as folder:
        plain = FullNetworkEmbedding(options.backbone, **network).fit(images[:BATCH_SIZE])
        number = itertools.count()

        def fill():
            FullNetworkEmbedding(options.backbone, **network, cache=Path(folder) / f"filled{next(number)}").fit(images)

        passes = {"without a cache": lambda: plain.transform(images), "filling": fill}
        for n_threads in bench.thread_counts():
            with bench.threads(n_threads):
                seconds = bench.interleave(passes, options.turns)
                records.append(bench.report("one pass", seconds, against="without a cache", n_images=options.n_images))

        embeddings = {
            name: FullNetworkEmbedding(options.backbone, **network, cache=folder).set_params(**choice).fit(images)
            for name, choice in CHOICES.items()
        }
        full = embeddings["all layers"]
        with full._open_pass(images, None) as opened:
            opened._digest(opened._cache)
            keys = [opened._keys[row] for row in range(len(Pictures(images)))]
            activations = np.empty((len(keys), opened._cache.width), dtype=np.float32)
            opened._cache.get(keys, activations)
            configuration = opened._cache._rows.configuration
        before = stored_as_before(Path(folder) / "before.sqlite", activations, keys)
        caches = {
            name: LayerCache(RowCache(folder, configuration), e._layers_read, e.activation, e.pooling)
            for name, e in embeddings.items()
        }
        for cache in caches.values():
            cache.__enter__()
        runs = {"one vector a picture": before} | {name: reading(cache, keys) for name, cache in caches.items()}
        for n_threads in bench.thread_counts():
            with bench.threads(n_threads):
                seconds = bench.interleave(runs, options.turns)
                targets = dict.fromkeys(caches, ("<=", 1.05))
                records.append(bench.report("reading", seconds, against="one vector a picture", targets=targets))
                transforms = {name: (lambda e=e: e.transform(images)) for name, e in embeddings.items()}
                seconds = bench.interleave(transforms, options.turns)
                records.append(bench.report("transform, all cached", seconds, against="all layers"))
        for cache in caches.values():
            cache.__exit__(None, None, None)
    bench.save(records, options.out)


if __name__ == "__main__":
    main()
