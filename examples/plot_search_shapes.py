"""
Search pictures by sentences
============================

A joint space of pictures and sentences, learnt from drawn shapes and their captions, and searched with
sentences of our own.
"""

# %%
# The pictures
# ------------
#
# Each of the drawn scenes has two captions. The two lists are split together: one row is one picture.

from sklearn.model_selection import train_test_split

from sklearn_mm.datasets import make_captioned_shapes

shapes = make_captioned_shapes(1200, image_size=32, random_state=0)
images_train, images_test, captions_train, captions_test = train_test_split(
    shapes.images, shapes.captions, test_size=300, random_state=0
)
captions_train[0]

# %%
# The model
# ---------
#
# For pictures as simple as these, pixels are features enough. Photographs want
# :class:`~sklearn_mm.features.FullNetworkEmbedding` in the first place of the pipeline.

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_mm.retrieval import JointEmbeddingRanker


def to_rows(images):
    """Make a row of 3,072 pixels of each picture."""
    return images.reshape(len(images), -1).astype("float32")


model = make_pipeline(
    FunctionTransformer(to_rows),
    StandardScaler(),
    JointEmbeddingRanker(n_components=256, max_epochs=20, random_state=0),
)
model.fit(images_train, captions_train)

# %%
# How good is it?
# ---------------
#
# On pictures it has not seen. With 300 of them, chance is 0.03 for the first ten.

from sklearn_mm.metrics import RetrievalScorer

report = RetrievalScorer()(model, images_test, captions_test)
print(f"{report['t2i_hit@10']:.2f} of the captions find their picture among the first ten")
print(f"{report['i2t_hit@10']:.2f} of the pictures find one of their captions")

# %%
# Search
# ------
#
# The gallery is put together from the unseen pictures, and asked in sentences. A frame marks the picture that
# a caption was written for.

from sklearn_mm.display import RetrievalGridDisplay

queries = [row[0] for row in captions_test[:5]]
display = RetrievalGridDisplay.from_estimator(model, queries, images_test, correct=range(5), k=6)
