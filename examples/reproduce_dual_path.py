"""System 2, the dual-path network: instance loss as a start for ranking, and end to end with the image network.

    python examples/reproduce_dual_path.py FOLDER [--part val] [--seeds 0 1 2] [--rows 0 1 2]
    python examples/reproduce_dual_path.py --small

The first rows stand on the pooled last layer of a frozen EfficientNet-Lite0: ranking alone, instance loss alone,
ranking after a stage of instance loss, and with it. All have 20 epochs or the same 30 in all. The last two train on raw
pictures, a sixth of the training part: the network frozen, and from there end to end.
"""

from functools import partial

from reproduction import WIDTH, Task, parse, print_header

from sklearn_mm.features import ImageCNNEncoder, TextCNNEncoder, TextNGramEncoder
from sklearn_mm.retrieval import JointEmbeddingRanker

HINGES = {"loss": "ranking", "margin": 0.2, "negatives": "hardest"}
STAGES = {"pretrain_epochs": 10, "max_epochs": 20}
END_TO_END = {"loss": "infonce", "batch_size": 64, "instance_weight": 0.1, "precision": "auto", "dropout": 0.1}

ROWS = [
    ("hardest hinge alone, 30 epochs", {**HINGES, "max_epochs": 30}),
    ("hardest hinge after 10 epochs of instance loss", {**HINGES, **STAGES}),
    ("the same, and instance loss beside it", {**HINGES, **STAGES, "instance_weight": (0.5, 0.05)}),
    ("InfoNCE alone, 30 epochs", {"max_epochs": 30}),
    ("InfoNCE after 10 epochs of instance loss", STAGES),
    ("dual-path text CNN, hardest hinge alone, 30 epochs", {**HINGES, "max_epochs": 30, "text": "cnn"}),
    ("dual-path text CNN, after 10 of instance loss", {**HINGES, **STAGES, "text": "cnn"}),
]
PICTURE_ROWS = [
    ("raw pictures, network frozen", "none"),
    ("raw pictures, two stages, end to end", "all"),
]


def ranker(width, text="bag", **settings):
    """Make the ranker on features; the dual-path text network is narrow enough for a CPU."""
    if text == "cnn":
        encoder = TextCNNEncoder(width, width=0.25, min_df=5e-5)
    else:
        encoder = TextNGramEncoder(width, word_dim=width, min_df=5e-5)
    return JointEmbeddingRanker(encoder, n_components=width, **settings)


def end_to_end(trainable, n_epochs):
    """Make the ranker on raw pictures."""
    encoder = ImageCNNEncoder("efficientnet_lite0", trainable=trainable, backbone_learning_rate=0.1)
    settings = {**END_TO_END, "pretrain_epochs": n_epochs // 2, "max_epochs": n_epochs}
    return JointEmbeddingRanker(None, encoder, **settings, verbose=1)


def main():
    """Print the table."""
    extra = [
        WIDTH,
        (("--pictures",), {"type": int, "default": 1000, "help": "how many to train the image network on"}),
        (("--epochs",), {"type": int, "default": 8, "help": "epochs of the rows on raw pictures"}),
    ]
    args = parse(__doc__, len(ROWS) + len(PICTURE_ROWS), extra)
    task = Task.load(args)
    print_header()
    for row in args.rows:
        if row < len(ROWS):
            name, settings = ROWS[row]
            task.measure(name, partial(ranker, args.width, **settings), args.seeds)
        else:
            name, trainable = PICTURE_ROWS[row - len(ROWS)]
            task.train = task.train[: args.pictures]
            task.measure(name, partial(end_to_end, trainable, args.epochs), args.seeds, task.pictures())


if __name__ == "__main__":
    main()
