"""
As many labels as a picture deserves
====================================

Drawn scenes hold one shape or two, in one colour or two. An annotator learns which labels a picture gets, and how many.
"""

# %%
# The pictures
# ------------
#
# The labels of a picture are the shapes and colours of the things in it.

from sklearn.model_selection import train_test_split

from sklearn_mm.datasets import make_captioned_shapes

shapes = make_captioned_shapes(700, image_size=64, random_state=0)
images_train, images_test, labels_train, labels_test = train_test_split(
    shapes.images, shapes.tags, test_size=200, random_state=0
)
labels_train[:3]

# %%
# The model
# ---------
#
# All layers of a small network, set to -1, 0 and 1, are the features; the labels are lists, and so are the
# predictions. A part of the training pictures is held out to learn how many labels to give: for the last points, leave
# `n_folds` as it is, and each picture is held out once.

from sklearn.pipeline import make_pipeline

from sklearn_mm.annotation import MultiLabelAnnotator
from sklearn_mm.features import FullNetworkEmbedding

model = make_pipeline(
    FullNetworkEmbedding("efficientnet_lite0", image_size=64),
    MultiLabelAnnotator(n_folds=None, random_state=0),
)
model.fit(images_train, labels_train)
model.predict(images_test[:3])

# %%
# How good is it?
# ---------------
#
# On pictures it has not seen: the same number of labels for all, the predicted number, and the true number, which no
# model knows.

from sklearn_mm.metrics import AnnotationScorer, format_annotation_report

ways = {"3 labels": 3, "predicted": "predict", "true": "true"}
reports = {name: AnnotationScorer(n_labels)(model, images_test, labels_test) for name, n_labels in ways.items()}
print(format_annotation_report(reports))

# %%
# Look at some
# ------------

from sklearn_mm.display import AnnotationGridDisplay

display = AnnotationGridDisplay.from_estimator(model, images_test[:12], labels_test[:12])
