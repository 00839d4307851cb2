"""Time and RSum of the settings that have a word, on 1,200 photographs of Flickr8k and the validation part.

python examples/flickr8k_settings.py FOLDER [--settings fast balanced best] [--cache FOLDER]
"""

import argparse
import time

import numpy as np

from sklearn_mm.datasets import load_flickr8k
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.retrieval import make_search_pipeline

N_PICTURES = 1200


def main():
    """Fit each setting, and score it on pictures that it has not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--settings", nargs="+", default=["fast", "balanced", "best"])
    parser.add_argument("--cache", help="keeps activations; the times are of the rest then")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train, val = (load_flickr8k(args.folder, split=part) for part in ("train", "val"))
    rows = np.random.default_rng(args.seed).permutation(len(train.images))[:N_PICTURES]
    images, captions = [train.images[row] for row in rows], [train.captions[row] for row in rows]
    for setting in args.settings:
        model = make_search_pipeline(setting, cache=args.cache, random_state=args.seed)
        start = time.perf_counter(), time.process_time()
        X = model[0].fit_transform(images)
        features = time.perf_counter(), time.process_time()
        model[-1].fit(X, captions)
        end = time.perf_counter(), time.process_time()
        report = RetrievalScorer()(model, val.images, val.captions)
        taken = "; ".join(
            f"{name} {b[0] - a[0]:.1f} s ({b[1] - a[1]:.1f} s of CPU)"
            for name, a, b in (("features", start, features), ("ranker", features, end))
        )
        print(f"{setting}: RSum {report['rsum']:.1f}; {taken}; {X.shape[1]} columns", flush=True)


if __name__ == "__main__":
    main()
