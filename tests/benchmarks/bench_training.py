"""What a fit costs beside the forward, backward and step that it is made of.

A ranker learns from 6,000 rows of 8,000 features, with its bag of words as the text encoder; the same model, and the
very batches that it saw, go through a bare loop of torch: they are in memory, as tensors, before the clock starts, and
there is nothing but the forward pass, the gradient, its clipping and the step. Wall time of an epoch, by turns.

    python tests/benchmarks/bench_training.py --turns 5 --out training.json
"""

import bench
import numpy as np
import torch
from torch import nn

from sklearn_mm._device import forked_rng
from sklearn_mm.losses import InfoNCELoss
from sklearn_mm.retrieval import JointEmbeddingRanker
from sklearn_mm.retrieval._training import make_model
from sklearn_mm.training import ALONE, TrainingSettings, make_optimizer, make_scaler, make_schedule, train_epochs
from sklearn_mm.training._train import Stage, _prepared

RATE, DECAY, CLIP = 1e-3, 1e-4, 2.0


def data(n_images, n_features, n_words=8_000, n_said=11):
    """Draw ternary features (int8), and five captions each of words as frequent as words are."""
    rng = np.random.default_rng(0)
    features = rng.integers(-1, 2, (n_images, n_features), dtype=np.int8)
    words = np.minimum(rng.zipf(1.3, (n_images, 5, n_said)), n_words)
    return features, [[" ".join(f"w{word}" for word in said) for said in own] for own in words]


class Both:
    """A model in training, one epoch after the other: by the library's loop, and by a bare one."""

    def __init__(self, ranker, features, captions):
        self.captured = {}
        ranker.fit(features[:64], captions[:64])  # what `fit` is made of, below, with its checks
        given = ranker._check_training_data(features, captions, None, None, reset=True)
        state = np.random.RandomState(0)
        with forked_rng(state):
            rows, images, *_ = ranker._encode_images(given.X, given.captions, None, None, None, state, False)
            text_rows = ranker._encode_texts(rows, images, state, False)
            self.batches = ranker._batches(rows, text_rows, images, np.random.default_rng(0))
            self.model = make_model(self.batches, ranker.loss_, ranker.similarity, None, ranker.n_components)
        self.settings = TrainingSettings(torch.device("cpu"))
        self.optimizer = make_optimizer("adamw", self.model, learning_rate=RATE, weight_decay=DECAY)
        self.schedule = make_schedule("constant", self.optimizer, 1)
        self.in_memory = list(self.batches)

    def ours(self):
        """Train an epoch as `fit` does."""
        stage = Stage("joint", self.model, self.batches, 1, RATE)
        with forked_rng(0):
            epochs = train_epochs(
                self.model,
                lambda: _prepared(stage, self.settings),
                self.optimizer,
                self.schedule,
                make_scaler(self.settings),
                self.settings,
                n_epochs=1,
                processes=ALONE,
            )
            list(epochs)

    def bare(self):
        """Train an epoch by torch alone."""
        parameters = list(self.model.parameters())
        self.model.train()
        for batch in self.in_memory:
            loss = self.model(batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP)
            self.optimizer.step()


def main():
    """Time both, with all threads and with one."""
    options = bench.parser(__doc__)
    options.add_argument("--images", type=int, default=6_000)
    options.add_argument("--features", type=int, default=8_000)
    options.add_argument("--components", type=int, default=1024)
    options = options.parse_args()
    features, captions = data(options.images, options.features)
    ranker = JointEmbeddingRanker(
        n_components=options.components, max_epochs=0, device="cpu", precision="float32", loss=InfoNCELoss()
    )
    both = Both(ranker, features, captions)
    records = []
    for n_threads in bench.thread_counts():
        with bench.threads(n_threads):
            seconds = bench.interleave({"bare loop": both.bare, "fit": both.ours}, options.turns)
            records.append(
                bench.report(
                    "an epoch of a ranker, bag of words",
                    seconds,
                    against="bare loop",
                    targets={"fit": ("<=", 1.1)},
                    n_images=options.images,
                    n_features=options.features,
                )
            )
    bench.save(records, options.out)


if __name__ == "__main__":
    main()
