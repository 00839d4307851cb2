"""Find emoji by sentences: the whole of the library on some four thousand pictures.

    python examples/openmoji_demo.py [--output demo_output]

Renders OpenMoji, runs EfficientNet-Lite0 over it, learns a joint space of pictures and names from four fifths of
them, and measures it on the rest: once with a rest drawn at random, once with a rest that shares no sign with the
training pictures. Writes the table, a grid of queries and what they find for each of the two, and the model, which is
then opened again in a fresh process. Needs the extra `demo`.
"""

import argparse
import json
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import joblib
import matplotlib as mpl
import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from sklearn.pipeline import make_pipeline

from sklearn_mm.datasets import load_openmoji
from sklearn_mm.display import RetrievalGridDisplay
from sklearn_mm.exceptions import UnknownWordsWarning
from sklearn_mm.features import FullNetworkEmbedding, LinearNystroem
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.retrieval import CorrelationRanker, JointEmbeddingRanker, RankerEnsemble

ATTRIBUTION = "All emojis designed by OpenMoji, the open-source emoji and icon project. License: CC BY-SA 4.0"
SPLITS = {
    "random": "variants of a test picture, or the same drawing under another name, may have been trained on",
    "grouped": "no variant of a test picture was trained on",
}
K = (1, 5, 10)
COLUMNS = [f"{way}_hit@{k}" for way in ("i2t", "t2i") for k in K]
N_QUERIES = 8
N_SHOWN = 8  # pictures for a query


def make_ranker():
    """Make the ranker of the demo; names of emoji are short and alike, so fewer dimensions and epochs will do."""
    return JointEmbeddingRanker(n_components=512, max_epochs=10, early_stopping=False, random_state=0, verbose=1)


def make_span():
    """Make the step before the ranker of the full network, which is several times as fast on so many coordinates."""
    return LinearNystroem(2000, random_state=0)


def make_ensemble():
    """Make the ranker of the full network: the same, and one that is solved for, which takes seconds."""
    return RankerEnsemble([("solved", CorrelationRanker()), ("trained", make_ranker())], weights=None, random_state=0)


def flatten(captions):
    """Return all texts, and the row of the picture that each describes."""
    texts = [text for row in captions for text in row]
    return texts, np.repeat(np.arange(len(captions)), [len(row) for row in captions])


def evaluate(ranker, features, captions):
    """Measure a ranker on pictures with their captions."""
    texts, text_to_image = flatten(captions)
    image, text = ranker.transform(features), ranker.transform_text(texts)
    hubs = ranker.hubness_
    return retrieval_report(
        image,
        text,
        text_to_image,
        k=K,
        image_offset=hubs.image_offsets(image),
        text_offset=hubs.text_offsets(text),
    )


def has_known_word(ranker, text):
    """Tell whether a name shares a word with the names of the training pictures."""
    vocabulary = ranker.named_estimators_["trained"].text_encoder_.vocabulary_
    return not set(re.findall(r"\w+", text.lower())).isdisjoint(vocabulary)


def evaluate_chance(captions):
    """Measure a model that finds everything alike: ties count as their expectation."""
    texts, text_to_image = flatten(captions)
    return retrieval_report(np.ones((len(captions), 1)), np.ones((len(texts), 1)), text_to_image, k=K)


def split_rows(emoji, split):
    """Return the rows to train on, and the fifth for the test."""
    rows = np.arange(len(emoji.images))
    if split == "random":
        return train_test_split(rows, test_size=0.2, random_state=0)
    return next(GroupShuffleSplit(n_splits=1, test_size=0.2, random_state=0).split(rows, groups=emoji.groups))


def run_split(emoji, split, cache):
    """Learn and measure on one split.

    The network sees each picture once, for the baseline of the first split: all of its layers come from the cache from
    then on. The baseline is what is usual: the last layer alone, pooled and standardised, and one ranker that trains.
    """
    train, test = split_rows(emoji, split)
    pictures_train, pictures_test = ([emoji.images[row] for row in rows] for rows in (train, test))
    captions_train, captions_test = ([emoji.captions[row] for row in rows] for rows in (train, test))

    print(f"\n{split} split: {len(train)} pictures to train on, {len(test)} for the test")
    # an engine starts in two seconds, which pays for thousands of pictures
    embedding = FullNetworkEmbedding("efficientnet_lite0", engine="torch", cache=cache, verbose=1)
    one_layer = clone(embedding).set_params(layers="last", discretize=False)
    span = make_span()
    reports = {}
    for name, own, steps, make in (
        ("one layer", one_layer, [], make_ranker),
        ("full network", embedding, [span], make_ensemble),
    ):
        features = make_pipeline(own, *steps)
        features_train, features_test = features.fit_transform(pictures_train), features.transform(pictures_test)
        ranker = make().fit(features_train, captions_train)
        reports[f"{name}, {own.n_features_out_:,} features"] = evaluate(ranker, features_test, captions_test)
    reports["chance"] = evaluate_chance(captions_test)
    texts, _ = flatten(captions_test)
    n_unknown = sum(not has_known_word(ranker, text) for text in texts)
    print(f"{n_unknown} of the {len(texts)} test names share no word with training, and can be found by chance alone")
    ranker.set_gallery(images=features_test)
    return make_pipeline(embedding, span, ranker), test, reports


def format_table(reports, n_test):
    """Lay the reports out in lines of text."""
    lines = [f"{'':<36}{'picture -> name':>24}{'name -> picture':>24}{'RSum':>9}"]
    lines.append(f"{'Recall, %':<36}" + "".join(f"{f'@{k}':>8}" for k in K) * 2)
    for split, rows in reports.items():
        lines.append(f"{split} split, {n_test[split]} unseen pictures: {SPLITS[split]}")
        for name, report in rows.items():
            values = "".join(f"{100 * report[column]:8.1f}" for column in COLUMNS)
            lines.append(f"  {name:<34}{values}{report['rsum']:9.1f}")
    return "\n".join(lines)


def draw_queries(model, emoji, split, test, path):
    """Draw what names of test pictures find among all test pictures: names by lot, but for those of unknown words."""
    captions = [emoji.captions[row] for row in test]
    candidates = [names[0] for names in captions if has_known_word(model[-1], names[0])]
    queries = np.random.default_rng(0).choice(candidates, N_QUERIES, replace=False).tolist()
    display = RetrievalGridDisplay.from_estimator(
        model,
        queries,
        [emoji.images[row] for row in test],
        correct=[[row for row, names in enumerate(captions) if query in names] for query in queries],
        k=N_SHOWN,
        use_gallery=True,
    )
    display.figure_.suptitle(f"{split} split: {SPLITS[split]}", fontsize=10)
    display.figure_.supxlabel(ATTRIBUTION, fontsize=8, color="dimgrey")
    display.figure_.savefig(path, dpi=120)


def answer(model, queries, pictures):
    """Answer queries and embed pictures, from pixels on."""
    scores, rows = model[-1].search_images(queries, k=5)
    return {"rows": rows.tolist(), "scores": scores.tolist(), "embedding": model.transform(pictures).tolist()}


def check_fresh_process(model_path, model, queries, pictures):
    """Open the model in a process of its own, and compare its answers."""
    command = [sys.executable, __file__, "--answer", str(model_path)]
    question = json.dumps({"queries": queries, "pictures": pictures})
    process = subprocess.run(command, input=question, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{model_path} did not open in a fresh process:\n{process.stderr}")
    there, here = json.loads(process.stdout), answer(model, queries, pictures)
    if there["rows"] != here["rows"] or not all(np.allclose(there[key], here[key]) for key in ("scores", "embedding")):
        raise RuntimeError(f"{model_path} answers otherwise in a fresh process")


def run(output):
    """Run the demo and write into the folder `output`."""
    start = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    emoji = load_openmoji(224, verbose=1)
    print(f"{len(emoji.images)} pictures, {len(set(emoji.groups))} different signs. {ATTRIBUTION}")

    models, tests, reports = {}, {}, {}
    for split in SPLITS:
        models[split], tests[split], reports[split] = run_split(emoji, split, output / "cache")
        draw_queries(models[split], emoji, split, tests[split], output / f"queries_{split}_split.png")
    table = format_table(reports, {split: len(test) for split, test in tests.items()})
    (output / "results.txt").write_text(f"{table}\n\n{ATTRIBUTION}\n", encoding="utf-8")
    print(f"\n{table}\n")

    model, test = models["random"], tests["random"]
    # It stands on its own, and from now on it sees a few pictures at a time.
    alone = {"cache": None, "verbose": 0, "engine": "auto"}
    model.set_params(**{f"fullnetworkembedding__{name}": value for name, value in alone.items()})
    joblib.dump(model, output / "model.joblib")
    queries, pictures = [emoji.captions[row][0] for row in test[:5]], [emoji.images[row] for row in test[:5]]
    check_fresh_process(output / "model.joblib", model, queries, pictures)
    print("model.joblib gives the same answers in a fresh process")
    print(f"wrote {', '.join(sorted(path.name for path in output.iterdir()))} to {output}/")
    print(f"{time.perf_counter() - start:.0f} seconds in all. {ATTRIBUTION}")


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder to write to")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)  # the fresh process's side
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UnknownWordsWarning)  # the report counts them
    if arguments.answer is not None:
        question = json.load(sys.stdin)
        json.dump(answer(joblib.load(arguments.answer), question["queries"], question["pictures"]), sys.stdout)
        return
    mpl.use("Agg")
    run(arguments.output)


if __name__ == "__main__":
    main()
