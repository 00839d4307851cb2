"""System 4, image and text matching by a global ranking objective: text models, losses, negatives.

    python examples/reproduce_ranking_objective.py FOLDER [--part val] [--seeds 0 1 2] [--rows 0 1 2]
    python examples/reproduce_ranking_objective.py --small

On the pooled last layer of a frozen EfficientNet-Lite0. First the text models under one loss, then the losses and
negatives with one text model. The source's claim: the way negatives are made specialises the system to one direction.
"""

from functools import partial

from reproduction import WIDTH, Task, parse, print_header

from sklearn_mm.features import TextCNNEncoder, TextGRUEncoder, TextNGramEncoder, TextSequenceEncoder
from sklearn_mm.losses import InfoNCELoss, RankingLoss
from sklearn_mm.retrieval import JointEmbeddingRanker

MIN_DF = 5e-5


def bag(width, longest=1, hidden=False, **settings):
    """Make the n-gram encoder; linear, without hidden layers."""
    settings = {"min_df": MIN_DF if longest == 1 else 2, "max_features": 30_000, **settings}
    return TextNGramEncoder(
        width, word_dim=width, ngram_range=(1, longest), hidden_layer_sizes=[width] * hidden, **settings
    )


def recurrent(width, **settings):
    """Make the recurrent encoder."""
    return TextGRUEncoder(width, min_df=MIN_DF, dropout=0.2, **settings)


def sequence(width):
    """Make the supervised sequence embedding."""
    return TextSequenceEncoder(width, phrase_dim=width, min_df=MIN_DF, dropout=0.2)


def convolutional(width, **settings):
    """Make the dual-path text network; at a quarter of its width, if not told otherwise."""
    return TextCNNEncoder(width, min_df=MIN_DF, **settings)


ROWS = [
    ("text: bag of words", {}),
    ("text: with bigrams", {"text": partial(bag, longest=2)}),
    ("text: with bigrams and trigrams", {"text": partial(bag, longest=3)}),
    ("text: with those and skip-grams", {"text": partial(bag, longest=3, skip=1)}),
    ("text: bag of words, hidden layer", {"text": partial(bag, hidden=True)}),
    ("text: sequence embedding (SSE)", {"text": sequence}),
    ("text: GRU, last state", {"text": recurrent}),
    ("text: GRU, maximum", {"text": partial(recurrent, pooling="max")}),
    ("text: dual-path CNN, quarter width", {"text": convolutional}),
    ("text: dual-path CNN, full width", {"text": partial(convolutional, width=1.0)}),
    ("hinges, all negatives, both sides", {"loss": RankingLoss()}),
    ("hinges, all negatives, wrong texts only", {"loss": RankingLoss(side="text")}),
    ("hinges, all negatives, wrong images only", {"loss": RankingLoss(side="image")}),
    ("hinges, hardest negative, both sides", {"loss": RankingLoss(negatives="hardest")}),
    ("hinges, semi-hard negative, both sides", {"loss": RankingLoss(negatives="semi-hard")}),
    ("hinges, random negative, both sides", {"loss": RankingLoss(negatives="random")}),
    ("hinges, hardest of 256 texts, both sides", {"loss": RankingLoss(negatives="hardest", pool_size=256)}),
    ("order, hinges 0.05, all negatives", {"loss": RankingLoss(0.05), "similarity": "order"}),
    ("InfoNCE, wrong texts only", {"loss": InfoNCELoss(side="text")}),
    ("InfoNCE, wrong images only", {"loss": InfoNCELoss(side="image")}),
    ("InfoNCE, trained temperature", {"loss": InfoNCELoss(trainable=True)}),
]


def ranker(width, text=bag, **settings):
    """Make the ranker of a row."""
    return JointEmbeddingRanker(text(width), n_components=width, **settings)


def main():
    """Print the table."""
    args = parse(__doc__, len(ROWS), [WIDTH])
    task = Task.load(args)
    print_header()
    for row in args.rows:
        name, settings = ROWS[row]
        task.measure(name, partial(ranker, args.width, **settings), args.seeds)


if __name__ == "__main__":
    main()
