"""System 2, the dual-path network: instance loss as a start for ranking, and end to end with the image network.

    python examples/reproduce_dual_path.py FOLDER [--part val] [--seeds 0 1 2] [--rows 0 1 2] [--word-vectors FILE]
    python examples/reproduce_dual_path.py --small

The first rows stand on the pooled last layer of a frozen EfficientNet-Lite0: ranking alone, instance loss alone,
ranking after a stage of instance loss, and with it. All have the same 30 epochs in all. The last four train on raw
pictures, a third of the training part, in two stages: the image network frozen throughout, or only in the first.
"""

from functools import partial

from reproduction import WIDTH, Task, parse, print_header

from sklearn_mm.features import ImageCNNEncoder, TextCNNEncoder, TextNGramEncoder
from sklearn_mm.losses import InstanceLoss, RankingLoss
from sklearn_mm.retrieval import JointEmbeddingRanker

HINGES = {"loss": RankingLoss(0.2, negatives="hardest")}
STAGES = {"instance_loss": InstanceLoss(0.0, pretrain_epochs=10), "max_epochs": 20}
BESIDE = {"instance_loss": InstanceLoss((0.5, 0.05), pretrain_epochs=10), "max_epochs": 20}
END_TO_END = {"loss": "infonce", "batch_size": 64, "precision": "auto", "dropout": 0.1}
MORE_STEPS = {"batch_size": 32, "captions_per_image": 5}  # of which a deep text network wants many, and texts are cheap

ROWS = [
    ("hardest hinge alone, 30 epochs", {**HINGES, "max_epochs": 30}),
    ("hardest hinge after 10 epochs of instance loss", {**HINGES, **STAGES}),
    ("the same, and instance loss beside it", {**HINGES, **BESIDE}),
    ("InfoNCE alone, 30 epochs", {"max_epochs": 30}),
    ("InfoNCE after 10 epochs of instance loss", STAGES),
    ("dual-path text CNN, hardest hinge alone, 30 epochs", {**HINGES, "max_epochs": 30, "text": "cnn"}),
    ("dual-path text CNN, after 10 of instance loss", {**HINGES, **STAGES, "text": "cnn"}),
]
PICTURE_ROWS = [
    ("raw pictures, text CNN, network frozen", "cnn", "none"),
    ("raw pictures, text CNN, end to end", "cnn", "all"),
    ("raw pictures, bag of words, network frozen", "bag", "none"),
    ("raw pictures, bag of words, end to end", "bag", "all"),
]


def text_encoder(kind, width, word_vectors):
    """Make the text tower; the dual-path network is narrow enough for a CPU."""
    if kind == "cnn":
        return TextCNNEncoder(width, width=0.25, min_df=5e-5, word_vectors=word_vectors)
    return TextNGramEncoder(width, word_dim=width, min_df=5e-5)


def ranker(width, word_vectors, text="bag", **settings):
    """Make the ranker on features."""
    return JointEmbeddingRanker(text_encoder(text, width, word_vectors), n_components=width, **settings)


def end_to_end(width, word_vectors, text, trainable, n_epochs):
    """Make the ranker on raw pictures."""
    settings = END_TO_END | (MORE_STEPS if text == "cnn" else {})
    images = ImageCNNEncoder("efficientnet_lite0", trainable=trainable, backbone_learning_rate=0.1)
    return JointEmbeddingRanker(
        text_encoder(text, width, word_vectors),
        images,
        n_components=width,
        instance_loss=InstanceLoss(0.1, pretrain_epochs=n_epochs // 2),
        max_epochs=n_epochs,
        verbose=1,
        **settings,
    )


def main():
    """Print the table."""
    extra = [
        WIDTH,
        (("--pictures",), {"type": int, "default": 2000, "help": "how many to train the image network on"}),
        (("--word-vectors",), {"metavar": "FILE", "help": "GloVe or word2vec text, where the text CNN starts from"}),
        (("--epochs",), {"type": int, "default": 8, "help": "epochs of the rows on raw pictures"}),
    ]
    args = parse(__doc__, len(ROWS) + len(PICTURE_ROWS), extra)
    task = Task.load(args)
    print_header()
    for row in args.rows:
        if row < len(ROWS):
            name, settings = ROWS[row]
            task.measure(name, partial(ranker, args.width, args.word_vectors, **settings), args.seeds)
        else:
            name, text, trainable = PICTURE_ROWS[row - len(ROWS)]
            task.train = task.train[: args.pictures]
            make = partial(end_to_end, args.width, args.word_vectors, text, trainable, args.epochs)
            task.measure(name, make, args.seeds, task.pictures())


if __name__ == "__main__":
    main()
