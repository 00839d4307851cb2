"""Time and quality of the settings that have a word, on 1,200 photographs of Flickr8k and the validation part.

python examples/flickr8k_settings.py FOLDER [--task search annotate] [--settings fast balanced best] [--cache FOLDER]

Searches are measured by RSum over the 1,000 photographs of the validation part. Annotators learn the nouns of four
captions, with other words of the fifth as tags and without (see annotation_reproduction.py), and are measured by the
overall F1 and the mean average precision.
"""

import argparse
import time

import numpy as np
import pandas as pd
from annotation_reproduction import load_photographs
from sklearn.base import clone

from sklearn_mm.annotation import make_annotation_pipeline
from sklearn_mm.datasets import load_flickr8k
from sklearn_mm.metrics import AnnotationScorer, RetrievalScorer
from sklearn_mm.retrieval import make_search_pipeline

N_PICTURES = 1200


class Clock:
    """Wall and processor seconds since the last question."""

    def __init__(self):
        self.since = time.perf_counter(), time.process_time()

    def __call__(self):
        """Say both."""
        before, self.since = self.since, (time.perf_counter(), time.process_time())
        wall, cpu = (now - then for now, then in zip(self.since, before, strict=True))
        return f"{wall:.1f} s ({cpu:.1f} s of CPU)"


def chosen(n_rows, seed):
    """Return the rows to learn from."""
    return np.random.default_rng(seed).permutation(n_rows)[:N_PICTURES]


def measure_searches(args):
    """Fit each setting, and score it on pictures that it has not seen."""
    train, val = (load_flickr8k(args.folder, split=part) for part in ("train", "val"))
    rows = chosen(len(train.images), args.seed)
    images, captions = [train.images[row] for row in rows], [train.captions[row] for row in rows]
    for setting in args.settings:
        model = make_search_pipeline(setting, cache=args.cache, random_state=args.seed)
        clock = Clock()
        X = model[0].fit_transform(images)
        features = clock()
        model[-1].fit(X, captions)
        ranker = clock()
        report = RetrievalScorer()(model, val.images, val.captions)
        taken = f"features {features}; ranker {ranker}"
        print(f"{setting}: RSum {report['rsum']:.1f}; {taken}; {X.shape[1]} columns", flush=True)
        if hasattr(model[-1], "named_estimators_"):
            X_val = model[0].transform(val.images)
            for name, member in model[-1].named_estimators_.items():
                rsum = RetrievalScorer()(member, X_val, val.captions)["rsum"]
                print(f"  {name} alone: RSum {rsum:.1f}", flush=True)


def measure_annotators(args):
    """Fit each setting with tags and without, and score it on pictures that it has not seen."""
    task = load_photographs(args.folder, "val")
    train = task.train[chosen(len(task.train), args.seed)]
    tags = [[f"word {column}" for column in task.tags[[row]].indices] for row in range(len(task.images))]
    known, asked = (
        pd.DataFrame({"image": [task.images[row] for row in rows], "tags": [tags[row] for row in rows]})
        for rows in (train, task.test)
    )
    for setting in args.settings:
        model = make_annotation_pipeline(setting)
        model.set_params(columns__image__cache=args.cache, annotator__random_state=args.seed)
        clock = Clock()
        X = model[0].fit_transform(known)
        print(f"{setting}: features {clock()}, {X.shape[1]} columns", flush=True)
        X_asked = model[0].transform(asked)
        seen = [name for name in X.columns if name.startswith("image__")]
        for names, kind, of_tags in ((seen, "pictures alone", None), (list(X.columns), "with tags", "tags__.*")):
            annotator = clone(model[-1]).set_params(tag_features=of_tags)
            clock = Clock()
            annotator.fit(X[names], task.labels[train])
            taken = clock()
            report = AnnotationScorer()(annotator, X_asked[names], task.labels[task.test])
            print(f"  {kind}: O-F1 {report['O-F1']:.3f}, mAP {report['mAP']:.3f}; annotator {taken}", flush=True)


def main():
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--task", nargs="+", default=["search", "annotate"], choices=["search", "annotate"])
    parser.add_argument("--settings", nargs="+", default=["fast", "balanced", "best"])
    parser.add_argument("--cache", help="keeps activations; the times are of the rest then")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if "search" in args.task:
        measure_searches(args)
    if "annotate" in args.task:
        measure_annotators(args)


if __name__ == "__main__":
    main()
