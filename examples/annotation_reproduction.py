"""Annotate pictures with as many labels as each deserves, and check what Niu et al. (2019) claim.

    python examples/annotation_reproduction.py --openmoji [--before] [--seeds 0 1 2] [--work-dir DIR]
    python examples/annotation_reproduction.py --flickr8k FOLDER [--against] [--part val | --part folds]

Two tasks. OpenMoji: category, subcategory, skin tone, gender and frequent words of the names are labels, rarer words
are noisy tags, and no variant of a test picture is trained on. Flickr8k: the 100 nouns that most photographs have in
the last four of their five captions are labels; the other words of the first caption are tags.

Prints, for each kind of features, every way of choosing the number of labels: mean and spread over seeds. The best
fixed number is the one that is best on the pictures measured on, in its favour. Then the two claims: tags help, and the
predicted number beats the best fixed one. Layers are pooled by mean and maximum, over a picture and its mirror image,
and near neighbours and a kernel score labels beside the network; `--before` measures the mean over the picture and the
network alone, as the sources have it. `--against` compares with scikit-learn's classifiers on the same features.
Nothing is chosen by the test part: `--part val` is for choosing. `--part folds` measures on all of the training part
in three folds, instead of on the test part with three seeds: where a thousand pictures are too few to tell.
"""

import argparse
import re
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier

from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator
from sklearn_mm.datasets import load_flickr8k, load_openmoji, make_captioned_shapes
from sklearn_mm.features import FullNetworkEmbedding, MultiScaleCNNEncoder
from sklearn_mm.metrics import AnnotationScorer, annotation_report

N_NOUNS, N_WORDS = 100, 1000
MIN_IMAGES = 10  # of a label, in training
ONE_LAYER, FULL_NETWORK = 1280, 8000  # the last activations of all
MEMBERS = ("neighbors", "kernel")
MULTI_SCALE = "multi-scale"  # pictures, through a frozen network whose scales are fused by layers that learn
MULTI_SCALE_EPOCHS = 5
N_FOLDS = 3
COLUMNS = ("C-P", "C-R", "C-F1", "O-P", "O-R", "O-F1", "H-F1", "mAP", "N+", "count_mae")

# Name, visual features (None for none), and whether tags are seen.
SETTINGS = (
    ("one layer", ONE_LAYER, False),
    ("full network", FULL_NETWORK, False),
    ("tags alone", None, True),
    ("one layer + tags", ONE_LAYER, True),
    ("full network + tags", FULL_NETWORK, True),
    ("multi-scale", MULTI_SCALE, False),
    ("multi-scale + tags", MULTI_SCALE, True),
)

NOUNS = set(
    re.findall(
        r"\w+",
        """
    air animal arm baby backpack bag ball baseball basketball beach bed bench bicycle bike biker bird board boat body
    boot bottle boy branch brick bridge building bus bush cage camera canoe cap car carpet cart cat chair child city
    cliff clothes coat collar costume court cow crowd cup cyclist deck dirt dog door dress ear edge eye face fence field
    fire fish flag floor flower food foot football forest fountain friend frisbee game garden girl glass glasses glove
    goggles goose grass ground guitar gun guy hair hand hat head helmet hill hoop horse house hurdle ice instrument
    jacket jeans jersey kayak kid lady lake lap leaf leash leg light line log man microphone mirror motorcycle mountain
    mouth mud night object ocean outfit paddle pants paper parade park path person phone picture pipe plant player
    playground pole pond pool porch puddle puppy race racket railing ramp rapid referee rider ring river road rock room
    rope sail sand scarf sea shirt shoe shop shore shorts shoulder sidewalk sign skate skateboard skateboarder skier sky
    slope snow snowboard snowboarder soccer sofa sprinkler stage stair statue step stick stone store stream street
    stroller suit sun sunglasses sunset surfboard surfer sweater swimmer swimsuit table team tennis tent toddler tongue
    top towel toy track trail train tree truck tub tunnel umbrella uniform van vehicle vest volleyball wagon wall water
    waterfall wave wheel wheelchair window woman wood yard
    """,
    )
)
IRREGULAR = {"men": "man", "women": "woman", "people": "person", "children": "child", "feet": "foot", "geese": "goose"}


@dataclass
class Task:
    """Pictures to annotate.

    `labels` is an indicator in the sparse form; `words` another one of many more labels, or None.
    """

    images: list
    labels: sparse.csr_array
    tags: sparse.csr_array
    train: np.ndarray
    test: np.ndarray
    groups: np.ndarray
    words: sparse.csr_array | None = None


# Tasks ----------------------------------------------------------------------------------------------------------


def load_emoji(part):
    """Make the task of OpenMoji; groups of variants are kept together."""
    emoji = load_openmoji(224, labels="words", verbose=1)
    rows = np.arange(len(emoji.images))
    train, test = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(rows, groups=emoji.groups))
    if part == "val":
        inner = GroupShuffleSplit(1, test_size=0.2, random_state=1).split(train, groups=emoji.groups[train])
        train, test = (train[half] for half in next(inner))
    return Task(emoji.images, frequent(emoji.target, train), count_tags(emoji.tags, train), train, test, emoji.groups)


def load_photographs(folder, part):
    """Make the task of Flickr8k: nouns of the last four captions as labels, other words of the first as tags."""
    data = load_flickr8k(folder)
    train, test = (np.flatnonzero(data.split == one) for one in ("train", "test" if part == "folds" else part))
    words = [[re.findall(r"[a-z]+", caption.lower()) for caption in captions] for captions in data.captions]
    nouns = [[noun_of(word) for caption in own[1:] for word in caption] for own in words]
    first = [[word for word in own[0] if noun_of(word) is None and word not in ENGLISH_STOP_WORDS] for own in words]
    others = [[word for caption in own for word in caption if word not in ENGLISH_STOP_WORDS] for own in words]
    return Task(
        data.images,
        mark_most_frequent([set(row) - {None} for row in nouns], train, N_NOUNS),
        count_tags(first, train),
        train,
        test,
        np.arange(len(data.images)),
        mark_most_frequent([set(row) for row in others], train, N_WORDS),
    )


def draw_scenes():
    """Make a task that takes seconds: drawn scenes, and the words of their captions that are no label as tags."""
    shapes = make_captioned_shapes(160, image_size=64, random_state=0)
    labels = set(shapes.label_names)
    words = [{word for caption in row for word in caption.split()} for row in shapes.captions]
    tags = [[word for word in row[0].split() if word.rstrip("s") not in labels] for row in shapes.captions]
    train, test = np.arange(110), np.arange(110, 160)
    return Task(
        list(shapes.images),
        frequent(sparse.csr_array(shapes.target), train),
        count_tags(tags, train),
        train,
        test,
        shapes.groups,
        mark_most_frequent(words, train, N_WORDS),
    )


def noun_of(word):
    """Return the noun in the singular, or None if it is none that we know."""
    candidates = [
        word,
        IRREGULAR.get(word, ""),
        re.sub("ies$", "y", word),
        re.sub("es$", "", word),
        re.sub("s$", "", word),
    ]
    return next((candidate for candidate in [*candidates, re.sub("ves$", "f", word)] if candidate in NOUNS), None)


def mark_most_frequent(rows, train, n_labels):
    """Mark the labels that most training pictures have."""
    counts = Counter(label for row in train for label in rows[row])
    names = [label for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n_labels]]
    return mark(rows, names)


def count_tags(rows, train):
    """Mark the tags that at least two training pictures have."""
    counts = Counter(tag for row in train for tag in set(rows[row]))
    return mark(rows, sorted(tag for tag, count in counts.items() if count >= 2))


def mark(rows, names):
    """Return a sparse indicator of which rows hold which names."""
    column_of = {name: column for column, name in enumerate(names)}
    places = [(row, column_of[name]) for row, own in enumerate(rows) for name in set(own) if name in column_of]
    row, column = np.array(places).T
    return sparse.csr_array((np.ones(len(places), dtype=np.int64), (row, column)), shape=(len(rows), len(names)))


def frequent(target, train):
    """Keep the labels of enough training pictures."""
    return target[:, np.flatnonzero(target[train].sum(axis=0) >= MIN_IMAGES)]


# Measuring ------------------------------------------------------------------------------------------------------


def run_network(task, cache, before):
    """Run EfficientNet-Lite0 once over all pictures; standardise its activations by the training part."""
    pooled = {} if before else {"pooling": "mean+max", "crops": "mirrored"}
    embedding = FullNetworkEmbedding("efficientnet_lite0", discretize=False, cache=cache, verbose=1, **pooled)
    return embedding.fit([task.images[row] for row in task.train]).transform(task.images)


def join(task, activations, visual, with_tags, before):
    """Return what an annotator of a setting sees of all pictures, and which columns are tags."""
    if visual is None:
        return task.tags, slice(None)
    if visual == MULTI_SCALE:
        frame = pd.DataFrame({"image": task.images})
        if not with_tags:
            return frame["image"], None
        tags = pd.DataFrame(task.tags.toarray()).add_prefix("tag")
        return pd.concat([frame, tags], axis=1), slice(1, None)
    features = last_layers(activations, visual, before)
    if not with_tags:
        return features, None
    return np.hstack([features, task.tags.toarray()], dtype=np.float32), slice(features.shape[1], None)


def last_layers(activations, n_activations, before):
    """Take the last columns: of each layer the means, and the maxima behind them."""
    return activations[:, -(1 if before else 2) * n_activations :]


def take(X, rows):
    """Return some rows."""
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def make_annotator(visual, tag_features, seed, small, before):
    """Make the annotator of a setting."""
    members = None if before else MEMBERS
    annotator = MultiLabelAnnotator(tag_features=tag_features, members=members, random_state=seed)
    if visual == MULTI_SCALE:
        encoder = MultiScaleCNNEncoder("efficientnet_lite0", image_size=64 if small else None)
        annotator.set_params(
            image_encoder=encoder, max_epochs=MULTI_SCALE_EPOCHS, hidden_layer_sizes=(), precision="auto"
        )
    return annotator.set_params(max_epochs=1) if small else annotator


def report_all(annotator, X, Y):
    """Return a report for every way of choosing the number of labels, from one fit."""
    scores, predicted = annotator.decision_function(X, return_count=True)
    fixed = [annotation_report(Y, scores, k) for k in range(1, min(11, Y.shape[1] + 1))]
    best = int(np.argmax([report["O-F1"] for report in fixed]))
    reports = {"best fixed": fixed[best]}
    for way in ("threshold", "label-thresholds"):
        reports[way] = AnnotationScorer()(annotator.set_params(label_count=way), X, Y)
    for way, rounding in (("number, floored", "floor"), ("number, rounded", "round")):
        annotator.set_params(label_count=LabelCountPredictor(rounding=rounding))
        reports[way] = annotation_report(Y, scores, annotator.predict_count(X))
    return reports | {way: annotation_report(Y, scores, n) for way, n in (("predict", predicted), ("true", "true"))}


def make_runs(task, part, seeds):
    """List (seed, rows to train on, rows to measure on); folds keep groups together, and have the first seed."""
    if part != "folds":
        return [(seed, task.train, task.test) for seed in seeds]
    folds = GroupKFold(N_FOLDS, shuffle=True, random_state=seeds[0]).split(task.train, groups=task.groups[task.train])
    return [(seeds[0], task.train[train], task.train[test]) for train, test in folds]


def measure(task, activations, settings, runs, small, before):
    """Fit and report each setting, print the table, and return the reports: {setting: {way: [report of a run]}}."""
    print(f"{'':<22}{'labels chosen by':<18}" + "".join(f"{column:>14}" for column in COLUMNS))
    results = {}
    for name, visual, with_tags in settings:
        X, tag_features = join(task, activations, visual, with_tags, before)
        ways, seconds = {}, []
        for seed, train, test in runs:
            annotator = make_annotator(visual, tag_features, seed, small, before)
            start = time.perf_counter()
            annotator.fit(take(X, train), task.labels[train], groups=task.groups[train])
            seconds.append(time.perf_counter() - start)
            for way, report in report_all(annotator, take(X, test), task.labels[test]).items():
                ways.setdefault(way, []).append(report)
        for way, reports in ways.items():
            print(f"{name:<22}{way:<18}" + "".join(f"{cell(reports, column):>14}" for column in COLUMNS), flush=True)
        print(f"{'':<22}fit in {np.median(seconds):.0f} s")
        results[name] = ways
    return results


def cell(reports, column):
    """Write mean and standard deviation; fractions in percent."""
    values = np.array([report[column] for report in reports]) * (1 if column in ("N+", "count_mae") else 100)
    digits = 2 if column == "count_mae" else 1
    return f"{values.mean():.{digits}f} +- {values.std():.{digits}f}"


def check_claims(results):
    """Print what becomes of the two claims."""
    print("\nTags help: overall F1 at the predicted number, and mAP, without and with tags")
    for name in ("one layer", "full network"):
        if {name, f"{name} + tags"} <= results.keys():
            plain, tagged = (results[key]["predict"] for key in (name, f"{name} + tags"))
            pairs = [f"{column} {cell(plain, column)} -> {cell(tagged, column)}" for column in ("O-F1", "mAP")]
            print(f"  {name:<22}{', '.join(pairs)}")
    print("The predicted number beats the best fixed one: of the way to the true number in overall F1 it goes")
    for name, ways in results.items():
        fixed, predicted, true = (
            100 * np.array([report["O-F1"] for report in ways[way]]) for way in ("best fixed", "predict", "true")
        )
        gain, gap = (predicted - fixed).mean(), (true - fixed).mean()
        share = f"{100 * gain / gap:.0f} %" if gap > 0 else "-"
        print(
            f"  {name:<22}{share:>6}: {fixed.mean():.1f}, {predicted.mean():.1f}, {true.mean():.1f}; "
            f"above the best fixed number in {np.count_nonzero(predicted > fixed)} of {len(fixed)} runs"
        )


# Against scikit-learn -------------------------------------------------------------------------------------------


def compare(X, Y, train, test, seeds, small, before):
    """Fit all that a user might pick in turns, and print mAP, overall F1 and seconds."""
    make = {
        "MultiLabelAnnotator": lambda seed: make_annotator(ONE_LAYER, None, seed, small, before),
        "MLPClassifier": lambda seed: MLPClassifier(random_state=seed, max_iter=2 if small else 200),
        "MLPClassifier(early_stopping=True)": lambda seed: MLPClassifier(random_state=seed, early_stopping=True),
        "OneVsRestClassifier(LogisticRegression())": lambda seed: OneVsRestClassifier(LogisticRegression()),
    }
    results = {name: [] for name in make}
    for seed in seeds:
        for name, make_one in make.items():
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # as many iterations as by default
                model = make_one(seed).fit(X[train], Y[train] if name.startswith("Multi") else Y[train].toarray())
            seconds = time.perf_counter() - start
            results[name].append(AnnotationScorer()(model, X[test], Y[test]) | {"seconds": seconds})
    ours = np.median([report["seconds"] for report in results["MultiLabelAnnotator"]])
    print(f"\n{Y.shape[1]} labels, {X.shape[1]} features, {len(train)} pictures")
    print(f"{'':<44}{'mAP':>14}{'O-F1':>14}{'C-F1':>14}{'fit, s':>9}{'ratio':>7}")
    for name, reports in results.items():
        seconds = np.median([report["seconds"] for report in reports])
        cells = "".join(f"{cell(reports, column):>14}" for column in ("mAP", "O-F1", "C-F1"))
        print(f"{name:<44}{cells}{seconds:9.1f}{seconds / ours:7.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openmoji", action="store_true", help="needs the extra demo")
    parser.add_argument("--flickr8k", metavar="FOLDER", help="in a layout that load_flickr8k reads")
    parser.add_argument("--small", action="store_true", help="drawn scenes and one epoch: does it run?")
    parser.add_argument("--part", default="test", choices=["val", "test", "folds"], help="the pictures to measure on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, nargs="+", default=range(len(SETTINGS)), help="kinds of features, from 0")
    parser.add_argument("--before", action="store_true", help="means of layers, and the network of labels alone")
    parser.add_argument("--against", action="store_true", help="compare with scikit-learn instead")
    parser.add_argument("--work-dir", help="keep the network's activations here, for the next run")
    args = parser.parse_args()
    if args.against and args.part == "folds":
        parser.error("--against measures on one part: give --part val or --part test")
    tasks = {}
    if args.small:
        tasks["drawn scenes"] = draw_scenes
    if args.openmoji:
        tasks["OpenMoji"] = lambda: load_emoji(args.part)
    if args.flickr8k:
        tasks["Flickr8k"] = lambda: load_photographs(args.flickr8k, args.part)
    if not tasks:
        parser.error("give --openmoji, --flickr8k FOLDER or --small")
    for name, make_task in tasks.items():
        task = make_task()
        counts = task.labels.sum(axis=1)
        n_measured = len(task.train if args.part == "folds" else task.test)
        print(
            f"\n{name}: {len(task.train)} pictures to train on, {n_measured} to measure on, "
            f"{task.labels.shape[1]} labels, {counts.min()} to {counts.max()} a picture, {counts.mean():.2f} on "
            f"average, {task.tags.shape[1]} tags"
        )
        settings = [SETTINGS[row] for row in args.rows]
        activations = None
        if args.against or any(isinstance(visual, int) for _, visual, _ in settings):
            with tempfile.TemporaryDirectory() as scratch:
                activations = run_network(task, args.work_dir or scratch, args.before)
        if args.against:
            X = last_layers(activations, ONE_LAYER, args.before)
            how = (args.small, args.before)
            compare(X, task.labels, task.train, task.test, args.seeds, *how)
            if task.words is not None:
                compare(X, task.words, task.train, task.test, args.seeds[:1], *how)
        else:
            runs = make_runs(task, args.part, args.seeds)
            check_claims(measure(task, activations, settings, runs, args.small, args.before))


if __name__ == "__main__":
    main()
