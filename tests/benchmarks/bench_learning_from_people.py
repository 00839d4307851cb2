"""What corrections of a few pictures bring an annotator, and how well wrong and missing labels are found.

    python tests/benchmarks/bench_learning_from_people.py [openmoji | drawn] [--seeds 3] [--small] [--features F]

Features are those of the last layer of EfficientNet-Lite0. Pictures are divided by groups into three parts: to train
on, to correct, and to measure on. In the first, labels are spoilt: 70 in 100 of some labels are missing, or there are
none of these labels. Then pictures of the second on which the annotator errs in these labels are corrected, and the
mean average precision of these labels and of the others is measured on the third, beside that of a new fit on all.

For the other table one label in twenty is taken away, and as many are added, each as often as it is true. With cleanlab
installed (which nothing here needs) its scores of the same probabilities stand beside.
"""

import argparse
import copy
import importlib.util
import time
import warnings
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from sklearn_mm.annotation import MultiLabelAnnotator, label_issues
from sklearn_mm.datasets import load_openmoji, make_captioned_shapes
from sklearn_mm.exceptions import LabelWarning
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.metrics import annotation_report

MIN_IMAGES = 10  # of a label, to train on
KEPT = 0.3  # of the labels that are spoilt
ERROR_RATE = 0.05
N_CORRECTIONS = (5, 20, 100)


def load(name, small, kept):
    """Return features, an indicator of labels, and groups; from a file where they are kept in one."""
    if kept is not None and kept.exists():
        with np.load(kept) as arrays:
            return arrays["features"], arrays["labels"], arrays["groups"]
    if name == "openmoji":
        emoji = load_openmoji(224, labels="words")
        images, labels, groups = emoji.images, emoji.target.toarray(), emoji.groups
        embedding = FullNetworkEmbedding("efficientnet_lite0", layers="last", discretize=False)
    else:
        shapes = make_captioned_shapes(300 if small else 3000, image_size=64, random_state=0)
        images, labels, groups = list(shapes.images), shapes.target, shapes.groups
        embedding = FullNetworkEmbedding("efficientnet_lite0", image_size=64, layers="last", discretize=False)
    features = embedding.fit_transform(images)
    if kept is not None:
        np.savez(kept, features=features, labels=labels, groups=groups)
    return features, labels, groups


def make_annotator(seed):
    return MultiLabelAnnotator(
        hidden_layer_sizes=(256,), max_epochs=10, n_folds=None, label_count="threshold", members=None, random_state=seed
    )


def precision_of(truth, scores, labels):
    return annotation_report(truth[:, labels], scores[:, labels], 1)["mAP"]


# Corrections ----------------------------------------------------------------------------------------------------


def split(groups, seed):
    """Return rows to train on, to correct and to measure on."""
    first, test = next(GroupShuffleSplit(1, test_size=0.3, random_state=seed).split(groups, groups=groups))
    inner = GroupShuffleSplit(1, test_size=0.3, random_state=seed).split(first, groups=groups[first])
    train, pool = next(inner)
    return first[train], first[pool], test


def measure_corrections(X, labels, groups, seed, how):
    """Return {row of the table: (precision of the labels corrected, of the others, seconds)}."""
    rng = np.random.default_rng(seed)
    train, pool, test = split(groups, seed)
    labels = labels[:, labels[train].sum(axis=0) >= MIN_IMAGES]
    n_labels = labels.shape[1]
    n_spoilt = 8 if n_labels > 30 else 3
    spoilt = rng.choice(n_labels, n_spoilt, replace=False)
    labels = np.concatenate([np.delete(labels, spoilt, axis=1), labels[:, spoilt]], axis=1)  # new ones stand behind
    spoilt, others = np.arange(n_labels - n_spoilt, n_labels), np.arange(n_labels - n_spoilt)
    given = labels[train].copy()
    given[:, spoilt] *= rng.random((len(train), n_spoilt)) < (KEPT if how == "missing" else 0)
    fitted_to = given if how == "missing" else given[:, others]
    annotator = make_annotator(seed).fit(X[train], fitted_to)
    scores = annotator.decision_function(X)
    scores = np.pad(scores, ((0, 0), (0, n_labels - scores.shape[1])), constant_values=-9.0)
    errs = ((scores[pool] > 0) != (labels[pool] == 1))[:, spoilt].any(axis=1)
    corrected = pool[rng.permutation(np.flatnonzero(errs))]

    def result(own_scores, seconds=np.nan):
        return precision_of(labels[test], own_scores, spoilt), precision_of(labels[test], own_scores, others), seconds

    results = {"before": result(scores[test])}
    for n in N_CORRECTIONS:
        model, own = copy.deepcopy(annotator), corrected[:n]
        start = time.perf_counter()
        model.partial_fit(X[own], labels[own])
        results[f"{n} corrected"] = result(model.decision_function(X[test]), time.perf_counter() - start)
    rows, told = np.concatenate([train, own]), np.concatenate([given, labels[own]])
    results[f"fit with these {n}"] = result(make_annotator(seed).fit(X[rows], told).decision_function(X[test]))
    results["fit to right labels"] = result(
        make_annotator(seed).fit(X[train], labels[train]).decision_function(X[test])
    )
    return results


# Issues ---------------------------------------------------------------------------------------------------------


def inject(labels, rng):
    """Take away one label in twenty, and add as many."""
    given = labels.copy()
    places = np.argwhere(labels == 1)
    taken = places[rng.choice(len(places), round(ERROR_RATE * len(places)), replace=False)]
    given[tuple(taken.T)] = 0
    share = labels.sum(axis=0) / labels.sum()
    n_added = 0
    while n_added < len(taken):
        row, column = rng.integers(len(labels)), rng.choice(len(share), p=share)
        if not labels[row, column] and not given[row, column]:
            given[row, column] = 1
            n_added += 1
    return given


def measure_issues(X, labels, groups, seed):
    """Return {name of a score: precision at 20, 100, half of the errors and all of them}."""
    labels = labels[:, labels.sum(axis=0) >= MIN_IMAGES]
    given = inject(labels, np.random.default_rng(seed))
    folds = list(GroupKFold(5, shuffle=True, random_state=0).split(X, groups=groups))
    annotator = make_annotator(seed).set_params(label_count=1)
    issues = label_issues(annotator, X, sparse.csr_array(given), cv=folds)
    n_errors = int((labels != given).sum())
    wrong = labels != given
    rankings = {"label_issues": wrong[issues.row, issues.label]}
    if importlib.util.find_spec("cleanlab"):
        rankings |= rank_by_cleanlab(out_of_fold(annotator, X, given, folds), given, wrong)
    ks = (20, 100, n_errors // 2, n_errors)
    return {name: [float(own[:k].sum() / k) for k in ks] for name, own in rankings.items()}, ks


def out_of_fold(annotator, X, given, folds):
    probability = np.empty(given.shape, np.float32)
    for train, test in folds:
        probability[test] = copy.deepcopy(annotator).fit(X[train], given[train]).predict_proba(X[test])
    return probability


def rank_by_cleanlab(probability, given, wrong):
    """Return whether labels are wrong, by scores that are those of one label after the other."""
    from cleanlab.rank import get_label_quality_scores

    rankings = {}
    for method in ("self_confidence", "normalized_margin"):
        for adjusted in (False, True):
            quality = [
                get_label_quality_scores(own, np.stack([1 - p, p], axis=1), method=method, adjust_pred_probs=adjusted)
                for own, p in zip(given.T, probability.T.astype(float), strict=True)
            ]
            order = np.argsort(np.stack(quality, axis=1), axis=None, kind="stable")
            rankings[f"cleanlab {method}{', adjusted' if adjusted else ''}"] = wrong.ravel()[order]
    return rankings


def print_table(results):
    for name in results[0]:
        mean = np.mean([own[name] for own in results], axis=0)
        print(f"{name:<42}" + "".join(f"{value:8.3f}" for value in mean), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="drawn", choices=["openmoji", "drawn"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="few drawn pictures, to see that it runs")
    parser.add_argument("--features", type=Path, help="a .npz file that features are kept in")
    options = parser.parse_args()
    warnings.simplefilter("ignore", LabelWarning)
    X, labels, groups = load(options.data, options.small, options.features)
    for how in ("missing", "new"):
        print(f"{how} labels: mAP of the labels corrected, of others, seconds")
        print_table([measure_corrections(X, labels, groups, seed, how) for seed in range(options.seeds)])
    measured = [measure_issues(X, labels, groups, seed) for seed in range(options.seeds)]
    print(f"precision at {measured[0][1]} of injected errors")
    print_table([results for results, _ in measured])


if __name__ == "__main__":
    main()
