"""System 1, the full-network embedding in a multimodal pipeline: many layers against one, with the source's text model.

    python examples/reproduce_full_network.py FOLDER [--part val] [--seeds 0] [--rows 0 1]
    python examples/reproduce_full_network.py --small

A frozen EfficientNet-Lite0, sentences by a gated recurrent network with an end token, hinges over all negatives (SH)
or the hardest one (MH), and order embeddings (SOE), as in the recipe `full_network_pipeline`, but narrower and for 20
epochs at a higher and falling rate instead of 200. `flickr8k_ranker.py` compares with the ranker's defaults.
"""

from reproduction import WIDTH, Task, parse, print_header

from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.retrieval.recipes import full_network_pipeline

# Name, layers, columns, discretised, variant of the recipe.
ROWS = [
    ("SH, last layer, standardised", "last", None, False, "SH"),
    ("SH, last layer, ternary", "last", None, True, "SH"),
    ("SH, last 8,000 activations, standardised", "auto", 8000, False, "SH"),
    ("SH, last 8,000 activations, ternary", "auto", 8000, True, "SH"),
    ("MH, last layer, standardised", "last", None, False, "MH"),
    ("MH, last 8,000 activations, ternary", "auto", 8000, True, "MH"),
    ("SOE, last layer, standardised", "last", None, False, "SOE"),
    ("SOE, last 8,000 activations, ternary", "auto", 8000, True, "SOE"),
]
N_EPOCHS, LEARNING_RATE = 20, 1e-3


def main():
    """Print the table."""
    args = parse(__doc__, len(ROWS), [WIDTH])
    task = Task.load(args)
    print_header()
    for name, layers, n_columns, discretize, variant in (ROWS[row] for row in args.rows):
        tables = task.features(layers, n_columns)
        embedding = FullNetworkEmbedding(discretize=discretize).fit(tables[0])

        def ranker(variant=variant):
            recipe = full_network_pipeline("efficientnet_lite0", variant=variant)["ranker"]
            return recipe.set_params(
                max_epochs=N_EPOCHS,
                lr_schedule="cosine",
                learning_rate=LEARNING_RATE,
                early_stopping=False,
                n_components=args.width,
                text_encoder__n_components=args.width,
                text_encoder__word_dim=args.width,
            )

        task.measure(name, ranker, args.seeds, [embedding.transform(table) for table in tables])


if __name__ == "__main__":
    main()
