"""Zero-shot and adapted search on Flickr8k by a dual encoder: CLIP, SigLIP, or a model of open_clip.

    python examples/flickr8k_dual.py FOLDER --download [--model openai/clip-vit-base-patch32] [--part val]
    python examples/flickr8k_dual.py --small

It needs `transformers` and `peft` (pip install 'sklearn-mm[hf]'), a network the first time, and for the rows that train
a GPU. With --model google/siglip2-base-patch16-224 give --loss sigmoid, the loss that it was trained by.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from reproduction import Task, parse, print_header, print_row

from sklearn_mm.annotation import ZeroShotAnnotator
from sklearn_mm.features import PretrainedImageEncoder, PretrainedTextEncoder
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.retrieval import JointEmbeddingRanker

CLIP = "openai/clip-vit-base-patch32"
EXTRA = [
    (("--model",), {"default": CLIP, "help": "a name on the hub, or a folder"}),
    (("--download",), {"action": "store_true", "help": "fetch the model's files, where this machine has them not"}),
    (("--loss",), {"default": "infonce", "choices": ["infonce", "sigmoid"]}),
]


def tiny_clip(folder):
    """Write a CLIP of random weights that reads letters: does the script run?"""
    import transformers

    letters = [*"abcdefghijklmnopqrstuvwxyz.,'-"]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate(tokens)}
    layers = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ends = {"bos_token_id": len(vocab) - 2, "eos_token_id": len(vocab) - 1}
    config = transformers.CLIPConfig(
        text_config={**layers, **ends, "vocab_size": len(vocab), "max_position_embeddings": 200},
        vision_config={**layers, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    pixels = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(pixels, transformers.CLIPTokenizerFast(vocab=vocab, merges=[])).save_pretrained(folder)


def make_rankers(args):
    """Return the rows: a name, and a ranker that is not fitted yet."""
    settings = {"local_files_only": not args.download}

    def ranker(learning="none", hubness=None, **training):
        # of whole towers the rate is that of the ranker: 1e-5 and below
        settings["backbone_learning_rate"] = 1.0 if learning == "all" else "auto"
        texts, images = (
            encoder(args.model, trainable=learning, **settings)
            for encoder in (PretrainedTextEncoder, PretrainedImageEncoder)
        )
        if args.small and training.get("max_epochs"):
            training["max_epochs"] = 1
        return JointEmbeddingRanker(
            texts, images, heads="residual", loss=args.loss, hubness=hubness, **{"max_epochs": 0, **training}
        )

    heads = {"max_epochs": 10, "learning_rate": 1e-4, "early_stopping": True}
    return [
        ("zero-shot", ranker()),
        ("the same, hubs corrected", ranker(hubness="auto")),
        ("heads trained on frozen towers", ranker(**heads)),
        ("the same, half of the way", ranker(**heads, interpolate="auto")),
        ("adapters on both towers", ranker("lora", max_epochs=5)),
        ("both towers whole, half of the way", ranker("all", max_epochs=5, learning_rate=1e-5, interpolate="auto")),
        ("the same, hubs corrected", ranker("all", "auto", max_epochs=5, learning_rate=1e-5, interpolate="auto")),
    ]


def measure_ranker(name, ranker, seeds, X, captions):
    """Fit a ranker for each seed, and print its row; without training one seed is all there are."""
    reports, seconds = [], []
    for seed in seeds if ranker.max_epochs else seeds[:1]:
        start = time.perf_counter()
        ranker.set_params(random_state=seed).fit(X[0], captions[0])
        seconds.append(time.perf_counter() - start)
        reports.append(RetrievalScorer(equal_captions="wrong")(ranker, X[1], captions[1]))
    print_row(name, reports, np.median(seconds))


def measure_labels(args, X, captions):
    """Label pictures by words that captions name, and print how well by the thresholds of a few examples."""
    words = ("dog", "child", "man", "woman", "water", "snow", "ball", "grass")
    if args.small:
        words = ("red", "green", "blue", "circle")
    truth = [np.array([[word in " ".join(own).split() for word in words] for own in each]) for each in captions]
    settings = {"local_files_only": not args.download}
    for n_examples in (20, 100):
        annotator = ZeroShotAnnotator(
            PretrainedTextEncoder(args.model, **settings),
            PretrainedImageEncoder(args.model, **settings),
            label_names=dict(enumerate(words)),
        ).fit(X[0][:n_examples], truth[0][:n_examples].astype(int))
        f1 = annotator.score(X[1], truth[1].astype(int))
        print(f"{len(words)} labels by their names, {n_examples} examples: O-F1 {100 * f1:.1f}")


def main():
    """Print the table."""
    args = parse(__doc__, 8, EXTRA)
    task = Task.load(args)
    with tempfile.TemporaryDirectory() as folder:
        if args.small:
            tiny_clip(Path(folder))
            args.model = folder
        X, captions = task.pictures(), [task.captions_of(rows) for rows in (task.train, task.test)]
        rankers = make_rankers(args)
        print_header()
        for row, (name, ranker) in enumerate(rankers):
            if row in args.rows:
                measure_ranker(name, ranker, args.seeds, X, captions)
        if len(rankers) in args.rows:
            measure_labels(args, X, captions)


if __name__ == "__main__":
    main()
