"""The published systems as ready pipelines.

Each function returns an ordinary `Pipeline` whose last step is named ``ranker``, with the source's parameters; change
any of them by ``set_params(ranker__max_epochs=10)``. Where the sources trained for days on a GPU, so do these.
"""

import os
from typing import Any

from sklearn.pipeline import Pipeline

from sklearn_mm.features import (
    FullNetworkEmbedding,
    ImageCNNEncoder,
    TextCNNEncoder,
    TextGRUEncoder,
    TextNGramEncoder,
    TextSequenceEncoder,
)
from sklearn_mm.losses import InstanceLoss, RankingLoss
from sklearn_mm.retrieval._ranker import JointEmbeddingRanker

__all__ = ["dual_path_pipeline", "full_network_pipeline", "ranking_objective_pipeline", "vse_plus_plus"]

# Loss, similarity, margin, width of the joint space, length of word vectors and learning rate of each experiment.
# From the launchers of the authors' code, those that train from scratch, with the widths of Flickr8k.
_FULL_NETWORK_VARIANTS: dict[str, dict[str, Any]] = {
    "SH": {"negatives": "all", "similarity": "cosine", "margin": 0.2, "width": 1536, "words": 1024, "rate": 2e-4},
    "MH": {"negatives": "hardest", "similarity": "cosine", "margin": 0.2, "width": 1024, "words": 1024, "rate": 2e-4},
    "SOE": {"negatives": "all", "similarity": "order", "margin": 0.05, "width": 1024, "words": 1024, "rate": 1e-3},
    "MOE": {"negatives": "hardest", "similarity": "order", "margin": 0.05, "width": 1536, "words": 1536, "rate": 1e-4},
}

# Without the n-grams of a single text, which teach nothing of another: captions have some hundred thousand different
# trigrams.
_TEXT_MODELS: dict[str, dict[str, Any]] = {
    "bag": {"ngram_range": (1, 1)},
    "bigrams": {"ngram_range": (1, 2), "min_df": 2},
    "trigrams": {"ngram_range": (1, 3), "min_df": 2},
    "skip-grams": {"ngram_range": (1, 3), "skip": 1, "min_df": 2},
}


def full_network_pipeline(
    backbone: Any = "vgg16",
    *,
    variant: str = "SH",
    layers: Any = "auto",
    released_maximum: bool = False,
    cache: str | os.PathLike[str] | None = None,
    random_state: Any = None,
    verbose: int = 0,
) -> Pipeline:
    """Build the full-network embedding in the multimodal pipeline (Vilalta et al.).

    All layers of a network, pooled, standardised and set to -1, 0 or 1; one linear map of them; sentences by a gated
    recurrent network; the pairwise ranking loss.

    Parameters
    ----------
    backbone, layers, cache
        As in `sklearn_mm.features.FullNetworkEmbedding`; ``layers="last"`` is the one-layer baseline.
    variant : {"SH", "MH", "SOE", "MOE"}, default="SH"
        The sum (S) of hinges over the batch's negatives, or their maximum (M), of cosines (H) or order embeddings (OE).
        The first is the scheme of the 2017 paper, the others are of the authors' later study.
    released_maximum : bool, default=False
        With "MH" and "MOE": take the maximum along the axis that the authors' code takes it, over the anchors of each
        negative instead of over the negatives of each anchor.
    random_state : int, RandomState or None, default=None
    verbose : int, default=0

    Returns
    -------
    Pipeline
        Steps ``features`` and ``ranker``.

    Raises
    ------
    ValueError
        `variant` is none of these.

    Notes
    -----
    As in the source: Adam at a constant rate, gradients held to norm 2 for each tensor alone, no weight decay, no
    dropout, 128 images a batch, one random caption for each image and epoch, 200 epochs (SOE 100), the weights of the
    best RSum on held-out images kept, an end token read after each sentence, all words kept.

    Otherwise: punctuation is dropped instead of being words; an unknown word is left out instead of having a vector,
    and words that only validation captions have are unknown; the last batch, of fewer images, trains too; the image's
    linear map starts as torch draws it, not by Xavier's rule; a tenth of the training images is held out, where the
    source has a validation set, and looked at once an epoch instead of every 100 batches; Adam's averages are corrected
    for their start (the source's are hardly: its first steps are about 3.5 times as long); the loss is a mean over the
    batch's pairs, not a sum, of no effect under Adam but for the clipping; embeddings are standardised once more before
    the linear map, without which ternary features of a mean far from 0 would learn slowly.

    Widths are the source's for Flickr8k; for Flickr30k and COCO it has 1,536 and 2,048 in MH, 1,024 and 1,536 in SOE,
    1,536 and 2,048 in MOE. It trained MH and MOE for up to 400 epochs, and SOE on Flickr8k for 200. Its PH and POE seem
    to be MH and MOE from the weights of SH and SOE: fit one of these, then set on its ranker
    ``loss__negatives="hardest"``, ``warm_start=True`` (for POE also ``learning_rate=1e-4``), and fit again. How the
    source's averaged features were cropped is not known; `sklearn_mm.features.FullNetworkEmbedding` leaves it open by
    ``crops``.

    References
    ----------
    .. [1] Vilalta et al., "Full-Network Embedding in a Multimodal Embedding Pipeline", 2017,
       https://arxiv.org/abs/1707.09872
    .. [2] The authors' code of the 2018 study, https://github.com/armandvilalta/Full-network-multimodal-embeddings

    Examples
    --------
    >>> from sklearn_mm.retrieval.recipes import full_network_pipeline
    >>> pipeline = full_network_pipeline("efficientnet_lite0", variant="SOE", random_state=0)
    >>> pipeline["ranker"].similarity, pipeline["ranker"].loss.margin
    ('order', 0.05)
    """
    if variant not in _FULL_NETWORK_VARIANTS:
        raise ValueError(f"variant must be one of {sorted(_FULL_NETWORK_VARIANTS)}, got {variant!r}")
    chosen = _FULL_NETWORK_VARIANTS[variant]
    negatives = chosen["negatives"]
    if negatives == "hardest" and released_maximum:
        negatives = "hardest-anchor"
    n_epochs = 100 if variant == "SOE" else 200
    ranker = JointEmbeddingRanker(
        # The source's mask is one longer than the sentence: the network reads one token of index 0 after its last word.
        TextGRUEncoder(chosen["width"], word_dim=chosen["words"], end_token=True),
        n_components=chosen["width"],
        similarity=chosen["similarity"],
        loss=RankingLoss(chosen["margin"], negatives=negatives),
        max_epochs=n_epochs,
        batch_size=128,
        captions_per_image=1,
        optimizer="adam",
        learning_rate=chosen["rate"],
        weight_decay=0.0,
        lr_schedule="constant",
        clip_norm=2.0,
        # The authors' code clips tensor by tensor, VSE++'s all together; the number is 2 in both.
        clip_tensors=True,
        dropout=0.0,
        # Never stops early, as n_iter_no_change is all epochs. As in the source, the best weights are kept.
        early_stopping=True,
        n_iter_no_change=n_epochs,
        hubness=None,
        random_state=random_state,
        verbose=verbose,
    )
    features = FullNetworkEmbedding(backbone, layers=layers, cache=cache, verbose=verbose)
    return Pipeline([("features", features), ("ranker", ranker)])


def dual_path_pipeline(
    backbone: Any = "resnet50",
    *,
    n_components: int = 2048,
    text_width: float = 1.0,
    word_vectors: Any = None,
    random_state: Any = None,
    verbose: int = 0,
) -> Pipeline:
    """Build the dual-path network with instance loss (Zheng et al.).

    Trained end to end in two stages: raw images through a network and a text through a residual convolutional one, told
    apart by one classifier with a class for each image; then ranking as well, and the image network trains too.

    Parameters
    ----------
    backbone : str or Module, default="resnet50"
        As in `sklearn_mm.features.ImageCNNEncoder`.
    n_components : int, default=2048
        Width of the joint space.
    text_width : float, default=1.0
        `sklearn_mm.features.TextCNNEncoder`'s `width`.
    word_vectors : mapping, KeyedVectors, path, or (npy path, words) pair, default=None
        The source starts from word2vec's.
    random_state : int, RandomState or None, default=None
    verbose : int, default=0

    Returns
    -------
    Pipeline
        The one step ``ranker``.

    Notes
    -----
    As in the source (Flickr30k, ResNet-50): Nesterov's momentum 0.9, rate 0.1, weight decay 1e-4, 32 images a batch
    with one caption each; 240 epochs of instance loss with the image network held still, then 60 of ranking (cosine,
    margin 1) with it; dropout 0.75 before the classifier, whose features and weights are not normalised; embeddings
    with a ReLU in training and without one in search; the hardest of 256 texts of other images as negative text, a
    random image of the batch as negative image; word vectors train at a thousandth of the rate; random crops, mirrored
    images, shifted texts.

    The source weighs ranking, images and texts by 2, 1 and 0.1, and sums over 16 ranked pairs of a batch of 32: as the
    mean over pairs is taken here, that is 1, 1 and 0.1. All 32 images are ranked here, not half of them.

    Otherwise: most residual blocks of the text network start as their shortcut; the rate falls to its tenth after half
    of each stage (source: after two thirds of the second); the last linear map has a bias instead of batch norm; a
    whole image network trains at a hundredth of the rate, where the source sets factors from 1e-4 to 2e-2 by kind of
    weight; batch norm's statistics stay the pretrained ones, where the source's frozen network normalises by the batch;
    images are embedded as one square and its mirror image, not at every position; words without a vector are kept.

    References
    ----------
    .. [1] Zheng, Zheng, Garrett, Yang, Xu, Shen, "Dual-Path Convolutional Image-Text Embeddings with Instance Loss",
       ACM TOMM 16(2), 2020, https://arxiv.org/abs/1711.05535
    .. [2] The authors' code, https://github.com/layumi/Image-Text-Embedding

    Examples
    --------
    >>> from sklearn_mm.retrieval.recipes import dual_path_pipeline
    >>> pipeline = dual_path_pipeline("efficientnet_lite0", n_components=256, text_width=0.25, random_state=0)
    >>> pipeline["ranker"].instance_loss.pretrain_epochs, pipeline["ranker"].instance_loss.weight
    (240, (1.0, 0.1))
    """
    ranker = JointEmbeddingRanker(
        TextCNNEncoder(n_components, width=text_width, word_vectors=word_vectors, word_learning_rate=1e-3),
        # Sides of 0.8 to 1 in the source are 0.64 to 1 of the area.
        ImageCNNEncoder(
            backbone, backbone_learning_rate=0.01, crop_scale=(0.64, 1.0), average_mirrored=True, verbose=verbose
        ),
        n_components=n_components,
        # The source has two linear layers on the image's side, and one on the text's.
        hidden_layer_sizes=(n_components,),
        loss=RankingLoss(1.0, negatives=("hardest", "random"), pool_size=256),
        instance_loss=InstanceLoss((1.0, 0.1), temperature=None, dropout=0.75, pretrain_epochs=240, relu=True),
        max_epochs=60,
        batch_size=32,
        captions_per_image=1,
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=1e-4,
        lr_schedule="step",
        # 0.75 is in front of the classifier alone; this one would be in front of the heads' linear maps.
        dropout=0.0,
        hubness=None,
        random_state=random_state,
        verbose=verbose,
    )
    return Pipeline([("ranker", ranker)])


def ranking_objective_pipeline(
    backbone: Any = "vgg16",
    *,
    text: str = "bag",
    negatives: str = "all",
    side: str = "both",
    cache: str | os.PathLike[str] | None = None,
    random_state: Any = None,
    verbose: int = 0,
) -> Pipeline:
    """Build the network trained by a global ranking objective (Baqapuri).

    The last layer of a frozen network and a perceptron; one of the source's text models and a perceptron; hinges of
    cosines.

    Parameters
    ----------
    backbone, cache
        As in `sklearn_mm.features.FullNetworkEmbedding`.
    text : {"bag", "bigrams", "trigrams", "skip-grams", "sequence"}, default="bag"
        Bag of words; with bigrams; with bigrams and trigrams; with those and their skip-grams; supervised sequence
        embedding.
    negatives : {"all", "hardest", "semi-hard", "random"}, default="all"
    side : {"both", "text", "image"}, default="both"
        Wrong texts teach to find texts for images, wrong images to find images for texts.
    random_state : int, RandomState or None, default=None
    verbose : int, default=0

    Returns
    -------
    Pipeline
        Steps ``features`` and ``ranker``.

    Raises
    ------
    ValueError
        `text` is none of these.

    Notes
    -----
    Of the source only the abstract is at hand. It names the task, the ranking objective, a convolutional network,
    perceptrons on both sides, the text models and the ways of making negatives. Everything else is our choice: one
    hidden layer of 1,024 on each side, a joint space of 512, margin 0.2, words in two texts at least for n-grams, and
    the optimiser and its schedule, which are the ranker's defaults.

    References
    ----------
    .. [1] Baqapuri, "Deep Learning Applied to Image and Text Matching", 2016, https://arxiv.org/abs/1601.03478

    Examples
    --------
    >>> from sklearn_mm.retrieval.recipes import ranking_objective_pipeline
    >>> pipeline = ranking_objective_pipeline("efficientnet_lite0", text="trigrams", side="text")
    >>> pipeline["ranker"].text_encoder.ngram_range
    (1, 3)
    """
    encoder: TextNGramEncoder | TextSequenceEncoder
    if text == "sequence":
        encoder = TextSequenceEncoder(512, hidden_layer_sizes=(1024,))
    elif text in _TEXT_MODELS:
        encoder = TextNGramEncoder(512, word_dim=1024, hidden_layer_sizes=(1024,), **_TEXT_MODELS[text])
    else:
        raise ValueError(f"text must be one of {sorted([*_TEXT_MODELS, 'sequence'])}, got {text!r}")
    ranker = JointEmbeddingRanker(
        encoder,
        n_components=512,
        hidden_layer_sizes=(1024,),
        loss=RankingLoss(0.2, negatives=negatives, side=side),
        hubness=None,
        random_state=random_state,
        verbose=verbose,
    )
    features = FullNetworkEmbedding(backbone, layers="last", discretize=False, cache=cache, verbose=verbose)
    return Pipeline([("features", features), ("ranker", ranker)])


def vse_plus_plus(
    backbone: Any = "resnet152",
    *,
    hard_negatives: bool = True,
    order: bool = False,
    fine_tune: bool = False,
    cache: str | os.PathLike[str] | None = None,
    random_state: Any = None,
    verbose: int = 0,
) -> Pipeline:
    """Build VSE++ (Faghri et al.): hinges on the hardest negatives.

    A linear map of the pooled layer, sentences by a gated recurrent network.

    Parameters
    ----------
    backbone, cache
        As in `sklearn_mm.features.FullNetworkEmbedding`; the cache only without `fine_tune`.
    hard_negatives : bool, default=True
        False sums over all negatives: "VSE0" and "Order0".
    order : bool, default=False
        Order embeddings in place of cosines: "Order++".
    fine_tune : bool, default=False
        Train the image network too, on random crops and mirrored images.
    random_state : int, RandomState or None, default=None
    verbose : int, default=0

    Returns
    -------
    Pipeline
        Steps ``features`` and ``ranker``; with `fine_tune` the latter alone, on raw images.

    Notes
    -----
    As in the source: 1,024 components, word vectors of 300, gated recurrent network, margin 0.2 (Order0 0.05 and
    absolute values), Adam at 2e-4 (Order0 1e-3) and its tenth after half of the epochs, 128 images a batch, gradients
    held to norm 2, words of four texts and more, no dropout, the weights of the best RSum on held-out images kept.
    Fine-tuning trains the image network at a tenth of the rate, 2e-5.

    Otherwise: an epoch of ours takes one caption of each image, the source's all five, so there are 150 for its 30; a
    tenth of the training images is held out, where the source has a validation set, and looked at once an epoch instead
    of every 500 batches; features are standardised, not scaled to unit length; no start token, an unknown word is left
    out instead of having a vector, and punctuation is dropped; the loss is a mean over the batch's pairs, not a sum, of
    no effect under Adam but for the clipping; fine-tuning runs from the start, where the source first trains the rest
    for 30 epochs. VSE0 has images of unit length here, and any length in the source. Order0 has the squared violation
    of order embeddings here, as Vendrov et al.'s code, and its root in the source.

    References
    ----------
    .. [1] Faghri, Fleet, Kiros, Fidler, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", BMVC 2018,
       https://arxiv.org/abs/1707.05612
    .. [2] The authors' code, https://github.com/fartashf/vsepp

    Examples
    --------
    >>> from sklearn_mm.retrieval.recipes import vse_plus_plus
    >>> vse_plus_plus("efficientnet_lite0", order=True)["ranker"].similarity
    'order-root'
    """
    # Order0 is Vendrov et al.'s order embedding, with their margin, rate and absolute values; Order++ has those of
    # VSE++.
    sums_order = order and not hard_negatives
    ranker = JointEmbeddingRanker(
        TextGRUEncoder(1024, word_dim=300, end_token=True, min_df=4),
        # 2e-5 of 2e-4; the crops are RandomResizedCrop's by default.
        ImageCNNEncoder(backbone, backbone_learning_rate=0.1, crop_scale=(0.08, 1.0)) if fine_tune else None,
        n_components=1024,
        similarity="order" if sums_order else "order-root" if order else "cosine",
        loss=RankingLoss(0.05 if sums_order else 0.2, negatives="hardest" if hard_negatives else "all"),
        # 30 epochs over five captions each, as one caption of each image is an epoch here.
        max_epochs=150,
        batch_size=128,
        captions_per_image=1,
        optimizer="adam",
        learning_rate=1e-3 if sums_order else 2e-4,
        weight_decay=0.0,
        lr_schedule="step",
        clip_norm=2.0,
        dropout=0.0,
        early_stopping=True,
        # Never stops early: the best weights of all epochs are kept.
        n_iter_no_change=150,
        hubness=None,
        random_state=random_state,
        verbose=verbose,
    )
    if fine_tune:
        return Pipeline([("ranker", ranker)])
    features = FullNetworkEmbedding(backbone, layers="last", discretize=False, cache=cache, verbose=verbose)
    return Pipeline([("features", features), ("ranker", ranker)])
