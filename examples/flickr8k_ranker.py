"""Rank Flickr8k's photographs and sentences by each other, on frozen EfficientNet-Lite0 features.

    python examples/flickr8k_ranker.py FOLDER [--tune] [--seeds 3] [--rows 0 1] [--work-dir DIR]

FOLDER holds Flickr8k in one of the layouts that `load_flickr8k` reads. Prints a table: Recall@K both ways and RSum on
the official test part, mean and spread over seeds, for one layer and for the full network, ternary or not: with the
ranker's defaults, or with `--tune` each with the best of the same few settings. Nothing is chosen by the test part.
"""

import argparse
import tempfile
from functools import partial
from itertools import product

import numpy as np
from reproduction import measure, print_header

from sklearn_mm.datasets import load_flickr8k
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.retrieval import JointEmbeddingRanker

# Name, layers, columns kept (None for all), discretised or not.
SETTINGS = (
    ("last layer, pooled, standardised", "last", None, False),
    ("last layer, pooled, ternary", "last", None, True),
    ("full network, ternary", "auto", None, True),
    ("full network, standardised", "auto", None, False),
    ("its last 8,000 features, ternary", "auto", 8000, True),
    ("its last 8,000 features, standardised", "auto", 8000, False),
)

# What `--tune` tries for each row, on the validation part with seed 0: width of the joint space and dropout.
WIDTHS, DROPOUTS = (1024, 2048), (0.3, 0.5)


def activations(images, train, layers, cache):
    """Run the network once over all images; return standardised activations, (n_images, n_features) float32.

    The statistics are those of the training part. As they stand, they can be cut and discretised further.
    """
    embedding = FullNetworkEmbedding("efficientnet_lite0", layers=layers, discretize=False, cache=cache, verbose=1)
    return embedding.fit([images[row] for row in train]).transform(images)


def tune(make_ranker, X, captions):
    """Choose the settings of the highest RSum on the validation part, and print what each reached."""
    settings = [{"n_components": width, "dropout": dropout} for width, dropout in product(WIDTHS, DROPOUTS)]
    reached = []
    for setting in settings:
        ranker = make_ranker(random_state=0, **setting).fit(X[0], captions[0])
        reached.append(RetrievalScorer(equal_captions="wrong")(ranker, X[1], captions[1])["rsum"])
        print(f"    validation: {reached[-1]:.1f} with {setting}", flush=True)
    return settings[int(np.argmax(reached))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=range(len(SETTINGS)), help="rows of the table, from 0")
    parser.add_argument("--tune", action="store_true", help="choose a few settings by the validation part first")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"], help="of training")
    parser.add_argument("--work-dir", help="keep the activations here, for the next run")
    args = parser.parse_args()

    data = load_flickr8k(args.folder)
    parts = [np.flatnonzero(data.split == part) for part in ("train", "test", "val")[: 2 + args.tune]]
    captions = [[data.captions[row] for row in part] for part in parts]
    print(f"{len(parts[0])} images to train on, {len(parts[1])} to test on")
    print_header("features")

    with tempfile.TemporaryDirectory() as scratch:
        tables = {}
        for name, layers, n_columns, discretize in (SETTINGS[row] for row in args.rows):
            if layers not in tables:
                tables[layers] = activations(data.images, parts[0], layers, args.work_dir or scratch)
            table = tables[layers][:, -n_columns:] if n_columns else tables[layers]
            embedding = FullNetworkEmbedding(discretize=discretize).fit(table[parts[0]])
            X = [embedding.transform(table[part]) for part in parts]
            make_ranker = partial(JointEmbeddingRanker, precision=args.precision)
            if args.tune:
                make_ranker = partial(make_ranker, **tune(make_ranker, X[::2], captions[::2]))
            row = f"{name:<40}{table.shape[1]:>8}"
            measure(row, make_ranker, range(args.seeds), X[:2], captions[:2])


if __name__ == "__main__":
    main()
