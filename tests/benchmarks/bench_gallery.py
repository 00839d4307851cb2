"""A gallery of a million random vectors with ids and metadata: how long each thing takes, and how much memory.

Rows are embedded already, so that what is measured is the gallery and no network.

    python tests/benchmarks/bench_gallery.py --items 1000000 --components 256 --out gallery.json
"""

import os
import resource
import tempfile
import time
from pathlib import Path

import bench
import numpy as np
from sklearn.base import BaseEstimator

from sklearn_mm.retrieval import Gallery


class UnitRows(BaseEstimator):
    """A ranker whose pictures and texts are vectors already; a text is the seed of one."""

    def __init__(self, n_components=256):
        self.n_components = n_components

    def fit(self, X, y=None):
        self.n_features_in_ = self.n_components
        return self

    def transform(self, X):
        return X

    def transform_text(self, texts):
        return np.stack([np.random.default_rng(len(text)).standard_normal(self.n_components) for text in texts])


def unit_rows(rng, n_rows, n_components):
    rows = rng.standard_normal((n_rows, n_components), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def memory_mb():
    """Return what is resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Measured:
    """Seconds, those of the processor (all threads, as on a quiet machine), and memory of one thing after the other."""

    def __init__(self):
        self.records = []

    def __call__(self, what, run, times=1):
        wall, cpu = [], []
        for _ in range(times):
            start = time.perf_counter(), time.process_time()
            answer = run()
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
        self.records.append({"what": what, "seconds": min(wall), "cpu_seconds": min(cpu), "resident_mb": memory_mb()})
        print(f"{what:56} {min(wall):8.3f} s, CPU {min(cpu):8.3f} s {memory_mb():7.0f} MB", flush=True)
        return answer


def fill(measure, model, options, rng):
    """Make a gallery, and measure what adds to it."""
    n_items, few = options.items, options.items // 100
    vectors = unit_rows(rng, n_items, options.components)
    ids = [f"photos/{number:07}.jpg" for number in range(n_items)]
    metadata = {
        "year": rng.integers(2000, 2026, n_items),
        "city": rng.choice(np.array(["Rome", "Pisa", "Lima", "Oslo"], dtype=object), n_items),
        "size": rng.random(n_items),
    }
    print(f"{n_items} x {options.components}: {vectors.nbytes / 2**20:.0f} MB of vectors, {memory_mb():.0f} MB before")
    gallery = measure("add all", lambda: Gallery(model).add(vectors, ids, metadata))
    extra = unit_rows(rng, few, options.components)
    names, years = [f"new/{number}.jpg" for number in range(few)], {"year": np.full(few, 2026)}
    measure("add 1 % more", lambda: gallery.add(extra, names, years))
    measure("add one more", lambda: gallery.add(extra[:1], ["one.jpg"]))
    measure("update one", lambda: gallery.update(extra[:1], ["one.jpg"]))
    return gallery


def search(measure, gallery, options, rng):
    one, many = ["a"], ["a" * length for length in range(1, 101)]
    measure("first search", lambda: gallery.search(one, options.k))
    measure("search", lambda: gallery.search(one, options.k), options.turns)
    measure("search by 100 sentences", lambda: gallery.search(many, options.k), options.turns)
    measure("similar", lambda: gallery.similar("photos/0000005.jpg", options.k), options.turns)
    mask = rng.random(len(gallery)) < 0.1
    measure("search where a mask leaves 10 %", lambda: gallery.search(one, options.k, where=mask), options.turns)
    expression = "year > 2020 and city == 'Rome'"
    measure(f"first search where {expression}", lambda: gallery.search(one, options.k, where=expression))
    measure(f"search where {expression}", lambda: gallery.search(one, options.k, where=expression), options.turns)
    measure(
        "search where a function of the metadata",
        lambda: gallery.search(one, options.k, where=lambda table: table["size"] < 0.1),
        options.turns,
    )


def main():
    parser = bench.parser(__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--components", type=int, default=256)
    parser.add_argument("-k", type=int, default=10)
    options = parser.parse_args()
    rng, measure = np.random.default_rng(0), Measured()
    model = UnitRows(options.components).fit(None)
    gallery = fill(measure, model, options, rng)
    search(measure, gallery, options, rng)
    measure("remove 1 %", lambda: gallery.remove(gallery.ids[: options.items // 2 : 50]))
    before = gallery.search("a", options.k)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photos.gallery"
        measure("save", lambda: gallery.save(path))
        n_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        opened = measure("open", lambda: Gallery.load(path, model))
        measure("first search after opening", lambda: opened.search("a", options.k))
        measure("search after opening", lambda: opened.search("a", options.k), options.turns)
        assert opened.search("a", options.k).rows() == before.rows()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"on disk {n_bytes / 2**20:.0f} MB, most memory {peak:.0f} MB")
    bench.save([*measure.records, {"what": "sizes", "disk_mb": n_bytes / 2**20, "peak_mb": peak}], options.out)


if __name__ == "__main__":
    main()
