"""Find labels of few pictures, and of none, by what they are called: OpenMoji.

    python examples/label_names.py ENCODER [--seeds 0 1 2] [--work-dir DIR]

ENCODER is a name or a folder of a sentence encoder, as all-MiniLM-L6-v2. Labels are those of `load_openmoji` and,
rarer, the other words of the names of at least three training pictures; no variant of a test picture is trained on.
Three in twenty labels, drawn anew for each seed, are told to be true of no training picture. Prints the mean average
precision of the others by how many training pictures have them, and of these, with and without a `name_encoder`; of
labels without pictures nothing is known without one, and what is printed is chance.
"""

import argparse
import re
import tempfile
import time
import warnings
from collections import Counter

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupShuffleSplit

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.datasets import load_openmoji
from sklearn_mm.exceptions import LabelWarning
from sklearn_mm.features import FullNetworkEmbedding, PretrainedTextEncoder

LEAST_IMAGES, LEAST_LETTERS = 3, 3
WITHOUT_IMAGES = 0.15  # of the labels
BINS = {"none": (0, 1), "1 to 9": (1, 10), "10 to 29": (10, 30), "30 or more": (30, 10**9)}


def load_labels(emoji, train):
    """Return labels of all pictures: an indicator with names."""
    own = [{word for name in names for word in re.findall(r"[a-z]+", name.lower())} for names in emoji.captions]
    in_labels = {word for label in emoji.label_names for word in re.findall(r"[a-z]+", label.lower())}
    counts = Counter(word for row in train for word in own[row])
    rare = sorted(word for word in counts.keys() - in_labels if len(word) >= LEAST_LETTERS)
    words = pd.DataFrame({word: [int(word in words) for words in own] for word in rare})
    labels = pd.concat([pd.DataFrame(emoji.target.toarray(), columns=emoji.label_names), words], axis=1)
    return labels.loc[:, labels.iloc[train].sum() >= LEAST_IMAGES]


def measure(name_encoder, X, labels, groups, train, test, seed, **settings):
    """Return the average precision of each label, and how many training pictures it was told of."""
    told = labels.iloc[train].copy()
    told.loc[:, np.random.default_rng(seed).random(labels.shape[1]) < WITHOUT_IMAGES] = 0
    annotator = MultiLabelAnnotator(name_encoder=name_encoder, random_state=seed, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelWarning)  # labels are true of no picture: that is what this is about
        annotator.fit(X[train], told, groups=groups[train])
    scores, truth = annotator.decision_function(X[test]), labels.iloc[test].to_numpy()
    there = truth.any(axis=0)
    precision = np.array([average_precision_score(*own) for own in zip(truth.T[there], scores.T[there], strict=True)])
    return precision, told.sum().to_numpy()[there], annotator.score(X[test], labels.iloc[test])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", help="name or folder of a sentence encoder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work-dir", help="keep the network's activations here, for the next run")
    args = parser.parse_args()
    emoji = load_openmoji(224, labels="words", verbose=1)
    rows = np.arange(len(emoji.images))
    train, test = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(rows, groups=emoji.groups))
    labels = load_labels(emoji, train)
    with tempfile.TemporaryDirectory() as scratch:
        last_layer = {"layers": "last", "pooling": "mean+max", "crops": "mirrored", "discretize": False}
        cache = args.work_dir or scratch
        embedding = FullNetworkEmbedding("efficientnet_lite0", cache=cache, verbose=1, **last_layer)
        X = embedding.fit([emoji.images[row] for row in train]).transform(emoji.images)
    print(
        f"{labels.shape[1]} labels; training pictures of a label, and how many such labels there are in the test part"
    )
    for name, encoder in (("no names", None), ("names", PretrainedTextEncoder(args.encoder))):
        found, f1, start = [], [], time.perf_counter()
        for seed in args.seeds:
            precision, n_images, score = measure(encoder, X, labels, emoji.groups, train, test, seed)
            within = [(n_images >= low) & (n_images < high) for low, high in BINS.values()]
            found.append([100 * precision[own].mean() for own in within])
            f1.append(100 * score)
        means, spreads = np.mean(found, axis=0), np.std(found, axis=0)
        cells = [
            f"{label} ({own.sum()}): {means[i]:.1f} +- {spreads[i]:.1f}"
            for i, (label, own) in enumerate(zip(BINS, within, strict=True))
        ]
        print(f"{name:<10}{', '.join(cells)}; O-F1 {np.mean(f1):.1f}, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
