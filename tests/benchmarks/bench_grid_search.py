"""Seconds of a grid search over the embedding, against one extraction and the fits.

Twelve candidates (`layers`, `activation`, `discretize`) in three folds over pictures, with a cache that is empty at
first. Against it: the network once over all pictures without a cache, and the same fits on activations in memory.

    python tests/benchmarks/bench_grid_search.py --n-images 1000 --out grid_search.json
"""

import tempfile
import time
from itertools import product

import bench
import numpy as np
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_mm.features import FullNetworkEmbedding

TARGET = ("<=", 1.15)
LAYERS, ACTIVATIONS, DISCRETIZE = ("auto", "last", 20), ("pre", "post"), (True, False)
N_FOLDS = 3


def searched(pipeline, grid, images, y, n_jobs):
    """Search, without fitting once more at the end."""
    named = {f"fullnetworkembedding__{name}": list(values) for name, values in grid.items()}
    return GridSearchCV(pipeline, named, cv=N_FOLDS, refit=False, n_jobs=n_jobs, error_score="raise").fit(images, y)


def main():
    """Read the command line, measure."""
    options = bench.parser(__doc__)
    options.add_argument("--backbone", default="efficientnet_lite0")
    options.add_argument("--n-images", type=int, default=1000)
    options.add_argument("--image-size", type=int, default=None)
    options.add_argument("--n-jobs", type=int, nargs="+", default=[1, 2])
    options = options.parse_args()
    side = options.image_size or 224
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(options.n_images, side, side, 3), dtype=np.uint8)
    y = rng.integers(10, size=options.n_images)
    weights = "default" if options.backbone.startswith("efficientnet_lite") else None
    embedding = FullNetworkEmbedding(options.backbone, weights=weights, image_size=options.image_size)
    grid = {"layers": LAYERS, "activation": ACTIVATIONS, "discretize": DISCRETIZE}
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for layers, activation in product(LAYERS, ACTIVATIONS):
            one = clone(embedding).set_params(layers=layers, activation=activation, discretize=False, cache=folder)
            tables.append(one.fit_transform(images))
    of_tables = make_pipeline(FullNetworkEmbedding(), RidgeClassifier())

    records = []
    for n_jobs in options.n_jobs:
        extractions: list[float] = []

        def extract_and_fit(n_jobs=n_jobs, extractions=extractions):
            start = time.perf_counter()
            clone(embedding).fit(images)
            extractions.append(time.perf_counter() - start)
            for table in tables:
                searched(of_tables, {"discretize": DISCRETIZE}, table, y, n_jobs)

        def search(n_jobs=n_jobs):
            with tempfile.TemporaryDirectory() as folder:
                pipeline = make_pipeline(clone(embedding).set_params(cache=folder), RidgeClassifier())
                searched(pipeline, grid, images, y, n_jobs)

        runs = {"one extraction and the fits": extract_and_fit, "search": search}
        seconds = bench.interleave(runs, options.turns, n_warm_up=0)
        records.append(
            bench.report(
                f"12 candidates, {N_FOLDS} folds, n_jobs={n_jobs}",
                seconds,
                against="one extraction and the fits",
                targets={"search": TARGET},
                n_images=options.n_images,
                extraction_s=float(np.median(extractions)),
            )
        )
    bench.save(records, options.out)


if __name__ == "__main__":
    main()
