"""Parts of docstrings that several estimators share, each written once."""

import re
import textwrap
from typing import Any, TypeVar

__all__ = ["shared_docs"]

AnyClass = TypeVar("AnyClass", bound=type[Any])

# filled in by a decorator, as an f-string is no docstring
_PARTS = {
    "tokenizer": """
        lowercase, min_df, max_features
            As in `sklearn.feature_extraction.text.CountVectorizer`.
        token_pattern : str, default=None
            Regular expression of a word. None takes letters, digits and underscores with the marks that stand on them,
            such as the vowel signs of Hindi, also a single one; and of Chinese, Japanese, Thai, Lao, Khmer and Burmese,
            which set no spaces, each character.
        analyzer : "word" or callable, default="word"
            A function from a text to its words, in the place of `token_pattern` and `lowercase`.
        unicode_form : {"NFC", "NFD", "NFKC", "NFKD"} or None, default="NFC"
            The normal form of Unicode into which texts are brought first: accents typed as signs of their own are
            those of letters that have them. None leaves texts as they are.
        """,
    "word_vectors": """
        word_vectors : mapping, KeyedVectors, path, or (npy path, words) pair, default=None
            Pretrained word vectors: ``{word: vector}``, gensim's KeyedVectors, a GloVe or word2vec text file, packed or
            not (``glove.6B.zip/glove.6B.50d.txt`` is one in an archive), or an array (or its npy file) with its words.
            Only the vocabulary's are read; a warning says where they are few.
        trainable_words : bool, default=True
            Train the word vectors. Otherwise they stay as given in `word_vectors`, but for one factor that brings them
            all to the size the network expects, and those that it lacks stay as drawn.
        """,
    "trained_alone": """
        learning_rate : float, default=1e-3
            AdamW's, warmed up over a tenth of the steps, then falling to 0 as a cosine.
        weight_decay : float, default=1e-4
        temperature : float, default=0.05
            The instance loss is a softmax over cosines divided by it.
        early_stopping : bool, default=False
            Hold out rows whose instance has others, stop when the share of them whose instance is named right has not
            risen for `n_iter_no_change` epochs, and keep the best weights.
        validation_fraction : float, default=0.1
            With `early_stopping`, share of the rows held out.
        n_iter_no_change : int, default=5
        """,
    "kept_and_shown": """
        checkpoint : path, default=None
            A folder that holds the state of training after every epoch of `fit`; the same `fit` goes on from there, as
            in `JointEmbeddingRanker`.
        verbose : int, default=0
            Show a bar over epochs.
        """,
    "augmentation": """
        crop_ratio : (float, float), default=(0.75, 1.3333333333333333)
            The least and the largest ratio of the width of that cut to its height.
        mirror : bool, default=True
            In training, mirror half of the pictures. Turn it off where texts tell left from right.
        color_jitter : float, default=0.0
            In training, by which share brightness, contrast and saturation go up or down at most.
        average_mirrored : bool, default=False
            In `transform`, and where a ranker embeds, take the mean of the embeddings of a picture and of its mirror
            image; twice the time.
        """,
    "precision": """
        precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
            In which networks compute; weights, losses and what is returned are float32. "auto" is bfloat16 where the
            hardware computes in it at `fit`, and float32 elsewhere; a fitted estimator keeps that on any machine. Set
            it where fits on two machines have to agree.
        """,
    "fitted_precision": """
        precision_ : {"float32", "bfloat16", "float16"}
            In which `fit` has computed, and in which what is fitted goes on under ``precision="auto"``.
        """,
    "reading_threads": """
        n_jobs : int, default=None
            Threads on the CPU, both those that torch computes with and those that read pictures meanwhile; None takes
            as many as torch is set to, -1 one for each core.
        """,
    "instance_history": """
        history_ : list of dict
            One record an epoch: ``epoch``, ``stage`` ("instance"), ``train_loss``, ``learning_rate``, ``seconds`` and,
            with rows held out, ``val_accuracy``. Empty where nothing was trained.
        precision_ : {"float32", "bfloat16", "float16"}
            In which `fit` has computed, and in which what is fitted goes on under ``precision="auto"``.
        """,
    "threads": """
        Any number of threads may use one that is fitted at the same time, and get the bits that they get one after the
        other; fits of separate ones too. See :ref:`threads`.
        """,
    "schedule": """
        lr_schedule : {"cosine", "linear", "step", "constant"}, default="cosine"
            "cosine" rises over a tenth of all steps; "step" falls to a tenth after half of them.
        """,
    "search_parameters": """
        hubness : {"auto", "nnn"}, NearestNeighborNormalization or None, default="auto"
            What is taken off the scores of images and texts that are near every query, in searches and in scores: by
            default (and by "nnn") what `NearestNeighborNormalization` takes by its defaults, where the similarity is
            the cosine. None searches by plain scores, as papers do.
        index : ExactIndex, FaissIndex or None, default=None
            Empty: what the galleries are searched with, by cosine. None is an `ExactIndex`.
        """,
    "calibration": """
        calibration_fraction : float, default=None
            Share of the images that `fit` keeps out of training, whole groups at a time, so that a `Gallery` learns of
            them how many pictures a sentence deserves: ``gallery.search(query, cutoff="calibrated")``. They are found
            like all others. Nine at least; `partial_fit` holds none out. With None `Gallery.calibrate` learns it.
        """,
    "hubness_": """
        hubness_ : NearestNeighborNormalization or None
            The correction, with banks of the images and texts trained on; those of the last call, of `partial_fit`.
        """,
    "resumed_and_shown": """
        checkpoint : path, default=None
            A folder that holds the state of training after every epoch. A `fit` of the same parameters and data goes on
            from there, to the same weights as one that was never stopped, bit for bit on the CPU with as many threads.
            Each combination of parameters and data has a file of its own, so that a grid search can share the folder;
            pictures, word vectors and weights that are given as files count by what these hold, which is read once more
            for it. A run that has finished is read back, not trained again: remove the folder to do so. With a
            checkpoint, a `random_state` of None means one that is drawn from parameters and data.
        verbose : int, default=0
            Show a bar over epochs.
        """,
}


def shared_docs(cls: AnyClass) -> AnyClass:
    """Fill in the shared parts of a class's docstring, where a line names one: ``%(tokenizer)s``; a class decorator."""
    if cls.__doc__ is not None:  # python -OO leaves none
        cls.__doc__ = re.sub(r"^( *)%\((\w+)\)s$", _part, cls.__doc__, flags=re.MULTILINE)
    return cls


def _part(line: "re.Match[str]") -> str:
    indent, name = line.groups()
    # the parts are indented as this file is, docstrings as their classes are
    return textwrap.indent(textwrap.dedent(_PARTS[name]).strip(), indent)
