"""Rank Flickr8k's photographs and sentences by each other, on frozen EfficientNet-Lite0 features.

    python examples/flickr8k_ranker.py FOLDER [--seeds 3] [--rows 0 1] [--work-dir DIR]

FOLDER holds Flickr8k in one of the layouts that `load_flickr8k` reads. Prints a table: Recall@K both ways and RSum on
the official test part, mean and spread over seeds, for one layer and for the full network, ternary or not. Nothing is
chosen by the test part.
"""

import argparse
import tempfile

import numpy as np
from reproduction import measure, print_header

from sklearn_mm.datasets import load_flickr8k
from sklearn_mm.features import FullNetworkEmbedding
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


def activations(images, train, layers, cache):
    """Run the network once over all images; return standardised activations, (n_images, n_features) float32.

    The statistics are those of the training part. As they stand, they can be cut and discretised further.
    """
    embedding = FullNetworkEmbedding("efficientnet_lite0", layers=layers, discretize=False, cache=cache, verbose=1)
    return embedding.fit([images[row] for row in train]).transform(images)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=range(len(SETTINGS)), help="rows of the table, from 0")
    parser.add_argument("--work-dir", help="keep the activations here, for the next run")
    args = parser.parse_args()

    data = load_flickr8k(args.folder)
    train, test = np.flatnonzero(data.split == "train"), np.flatnonzero(data.split == "test")
    captions_train, captions_test = ([data.captions[row] for row in part] for part in (train, test))
    print(f"{len(train)} images to train on, {len(test)} to test on")
    print_header("features")

    with tempfile.TemporaryDirectory() as scratch:
        tables = {}
        for name, layers, n_columns, discretize in (SETTINGS[row] for row in args.rows):
            if layers not in tables:
                tables[layers] = activations(data.images, train, layers, args.work_dir or scratch)
            table = tables[layers][:, -n_columns:] if n_columns else tables[layers]
            embedding = FullNetworkEmbedding(discretize=discretize).fit(table[train])
            X = [embedding.transform(table[part]) for part in (train, test)]
            row = f"{name:<40}{table.shape[1]:>8}"
            measure(row, JointEmbeddingRanker, range(args.seeds), X, (captions_train, captions_test))


if __name__ == "__main__":
    main()
