"""What the reproduction scripts share: the data, the features, and a row of a table.

Nothing here is chosen by the test part: `--part val` is for choosing.
"""

import argparse
import time
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone

from sklearn_mm.datasets import load_flickr8k, make_captioned_shapes
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.metrics import RetrievalScorer

COLUMNS = [f"{way}_hit@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]


# What `extra` takes of `parse`: to save time, these tables are narrower than the ranker's default.
WIDTH = ("--width",), {"type": int, "default": 512, "help": "components of the joint space"}


def parse(description, n_rows, extra=()):
    """Read the command line that all scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="Flickr8k, in a layout that load_flickr8k reads")
    parser.add_argument("--small", action="store_true", help="drawn scenes and one epoch instead: does it run?")
    parser.add_argument("--part", default="test", choices=["val", "test"], help="the pictures to measure on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, nargs="+", default=range(n_rows), help="rows of the table, from 0")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="of training, instead of a row's own")
    parser.add_argument("--work-dir", help="keep the network's activations here, for the next run")
    for names, settings in extra:
        parser.add_argument(*names, **settings)
    args = parser.parse_args()
    if (args.folder is None) != args.small:
        parser.error("give the folder of Flickr8k, or --small")
    return args


@dataclass
class Task:
    """Pictures with captions, to train on and to measure on."""

    images: list
    captions: list
    train: np.ndarray
    test: np.ndarray
    small: bool
    work_dir: str | None
    precision: str | None = None
    _tables: dict = field(default_factory=dict)

    @classmethod
    def load(cls, args):
        """Load what the command line names."""
        if args.small:
            data = make_captioned_shapes(48, random_state=0)
            rows = np.arange(48)
            return cls(list(data.images), data.captions, rows[:32], rows[32:], True, None, args.precision)
        data = load_flickr8k(args.folder)
        train, test = (np.flatnonzero(data.split == part) for part in ("train", args.part))
        return cls(data.images, data.captions, train, test, False, args.work_dir, args.precision)

    def features(self, layers="last", n_columns=None, *, backbone="efficientnet_lite0", crops="center"):
        """Return standardised activations of training and test pictures; the last `n_columns` of them."""
        key = (backbone, str(layers), crops)
        if key not in self._tables:
            embedding = FullNetworkEmbedding(
                backbone, layers=layers, crops=crops, discretize=False, cache=self.work_dir, verbose=1
            )
            embedding.fit([self.images[row] for row in self.train])
            self._tables[key] = [
                embedding.transform([self.images[row] for row in rows]) for rows in (self.train, self.test)
            ]
        return [table[:, -n_columns:] if n_columns else table for table in self._tables[key]]

    def captions_of(self, rows):
        """Return the captions of some pictures."""
        return [self.captions[row] for row in rows]

    def pictures(self):
        """Return the pictures themselves, to train on and to measure on."""
        return [[self.images[row] for row in rows] for rows in (self.train, self.test)]

    def measure(self, name, make_ranker, seeds, X=None):
        """Fit and measure a ranker for each seed, and print the row of the table."""

        def make():
            ranker = make_ranker()
            if self.precision is not None:
                ranker.set_params(precision=self.precision)
            if self.small:
                ranker = clone(ranker).set_params(max_epochs=1)  # its losses too, as the rows share them
                if ranker.instance_loss is not None:
                    ranker.set_params(instance_loss__pretrain_epochs=min(ranker.instance_loss.pretrain_epochs, 1))
            return ranker

        captions = [self.captions_of(rows) for rows in (self.train, self.test)]
        measure(name, make, seeds, self.features() if X is None else X, captions)


def measure(name, make_ranker, seeds, X, captions):
    """Fit a ranker on the first of `X` and `captions` for each seed, measure it on the second, and print the row."""
    reports, seconds = [], []
    for seed in seeds:
        ranker = make_ranker().set_params(random_state=seed, hubness=None)  # plain scores, as papers have
        start = time.perf_counter()
        ranker.fit(X[0], captions[0])
        seconds.append(time.perf_counter() - start)
        reports.append(RetrievalScorer(equal_captions="wrong")(ranker, X[1], captions[1]))
    print_row(name, reports, np.median(seconds))


def print_header(first="setting"):
    """Print what the columns are: Recall@K both ways, RSum, seconds of a fit."""
    print(f"{first:<52}" + "".join(f"{column:>14}" for column in COLUMNS) + f"{'RSum':>14}{'fit':>8}")


def print_row(name, reports, seconds):
    """Print mean and standard deviation over the reports."""
    cells = [_cell([100 * report[column] for report in reports]) for column in COLUMNS]
    cells.append(_cell([report["rsum"] for report in reports]))
    print(f"{name:<52}" + "".join(f"{cell:>14}" for cell in cells) + f"{seconds:7.0f}s", flush=True)


def _cell(values):
    return f"{np.mean(values):.1f} +- {np.std(values):.1f}"
