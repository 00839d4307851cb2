"""
Choose parameters by Recall@K
=============================

``GridSearchCV`` over the ranker's loss and its text encoder, with the measure of the literature: the share of
queries that find a right answer among the first K.
"""

# %%
# Data and model
# --------------

from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import TextNGramEncoder
from sklearn_mm.losses import InfoNCELoss
from sklearn_mm.retrieval import JointEmbeddingRanker

shapes = make_captioned_shapes(300, image_size=32, random_state=0)


def to_rows(images):
    """Make a row of 3,072 pixels of each picture."""
    return images.reshape(len(images), -1).astype("float32")


model = Pipeline(
    [
        ("rows", FunctionTransformer(to_rows)),
        ("scale", StandardScaler()),
        (
            "rank",
            JointEmbeddingRanker(
                text_encoder=TextNGramEncoder(n_components=128),
                n_components=128,
                loss=InfoNCELoss(),
                max_epochs=10,
                early_stopping=False,
                random_state=0,
            ),
        ),
    ]
)

# %%
# The search
# ----------
#
# One row is one picture with all its captions, so a plain integer as ``cv`` leaks nothing.
# :class:`~sklearn_mm.metrics.RetrievalScorer` answers with a dict, of which ``refit`` names the entry to
# choose by. Vocabularies are fitted anew in every fold.

from sklearn.model_selection import GridSearchCV

from sklearn_mm.metrics import RetrievalScorer

search = GridSearchCV(
    model,
    {"rank__loss__temperature": [0.05, 0.2], "rank__text_encoder__min_df": [1, 20]},
    scoring=RetrievalScorer(k=(1, 5, 10)),
    refit="rsum",
    cv=3,
).fit(shapes.images, shapes.captions)
search.best_params_

# %%
# What the search saw
# -------------------

import matplotlib.pyplot as plt

results = search.cv_results_
names = [f"T={p['rank__loss__temperature']}, min_df={p['rank__text_encoder__min_df']}" for p in results["params"]]
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.barh(names, results["mean_test_rsum"], xerr=results["std_test_rsum"])
axes.set_xlabel("RSum: six percentages added, the higher the better")
figure.suptitle("Three folds of 100 pictures")
