"""Sentence encoders that came pretrained, as they are or learning on."""

import os
import warnings
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sklearn_mm._checks import check_texts
from sklearn_mm._device import autocast, resolve_device, resolve_dtype, settle
from sklearn_mm._docs import shared_docs
from sklearn_mm._params import StrOptions, positive_int, validate_params
from sklearn_mm.exceptions import TruncationWarning
from sklearn_mm.features._pretrained import PretrainedEncoderBase
from sklearn_mm.nn.pretrained import OpenedModel, TextTokenizer, TokenBatch, open_text_model, pad_tokens
from sklearn_mm.registry import stored_as
from sklearn_mm.texts import TokenRows
from sklearn_mm.towers import RunningMoments

__all__ = ["PretrainedTextEncoder"]

_BATCH = 128  # texts of like length that pass the network at once
_SAMPLE = 1024  # texts whose vectors say what a head on top standardises by


@shared_docs
@stored_as("features.PretrainedTextEncoder")
class PretrainedTextEncoder(PretrainedEncoderBase):
    """Embed texts by a model that came pretrained.

    It is a sentence encoder, or the text side of a dual encoder.
    The tokeniser, the pooling and what follows it are those that the model's files name. It stays as it came, learns by
    adapters of low rank beside its weights (LoRA [1]_), or learns as a whole; inside of a ranker it trains with it.

    Parameters
    ----------
    model : str or path-like, default="sentence-transformers/all-MiniLM-L6-v2"
        A folder, or a name on the hub.
    trainable : {"none", "lora", "all"}, default="none"
        Nothing learns, and each text is embedded once, whoever trains on top of it; adapters; or all weights.
    lora_rank : int, default=8
        Of the adapters. They are added with a weight of 2, to each linear layer of the model's blocks.
    backbone_learning_rate : float or "auto", default="auto"
        Factor on the learning rate, here and inside a ranker: "auto" is 0.2 for adapters, and for all weights 0.02, or
        0.01 of a dual encoder: 1e-5 at a learning rate of 1e-3, above which it soon forgets how its sides are aligned.
    pooling : {"auto", "mean", "cls", "max", "last"}, default="auto"
        How the tokens' vectors become one. "auto" is what the files say: in a folder of sentence-transformers
        ``1_Pooling/config.json``, elsewhere the mean. Of no effect on a dual encoder.
    prompt : str or None, default="auto"
        What stands before each text. "auto" is the default prompt of the files, if there is one. The models of the e5
        family want ``"query: "``, which their files do not say.
    max_length : int, default=None
        Tokens of a text at most; None for what the files say. Longer texts are cut, and a warning names them.
    local_files_only : bool, default=True
        Open what this machine has; nothing is downloaded without being asked for. Where it has not, the error says how
        to get it.
    revision : str, default=None
        A branch, a tag or a commit of a name on the hub.
    max_epochs : int, default=3
        Passes over the texts in `fit`, which trains by instance loss. These and the following parameters are of no
        effect inside a ranker, which trains the model by its own settings.
    batch_size : int, default=128
    %(trained_alone)s
    random_state : int, RandomState or None, default=None
    device : str or torch.device, default="auto"
    %(precision)s
    %(kept_and_shown)s

    Attributes
    ----------
    module_ : Module
        Opened where it is used first.
    identity_ : str
        Digest of the weights that the model came with, its configuration and its tokeniser.
    trained_on_ : tuple of str or None
        The data that the model was trained on, as the card in its folder lists them; None where that is not known.
    logit_scale_, logit_bias_ : float or None
        What a dual encoder multiplies the cosine by, and adds to it, before the softmax or sigmoid of its training.
    %(instance_history)s

    Raises
    ------
    WeightsError
        In `fit`, or when a saved encoder is used: the model's files are not to be had.

    See Also
    --------
    TextNGramEncoder : Learns from nothing but the captions.

    Notes
    -----
    **Safety.** No code of a model is run, whatever its files ask for, and weights are read as tensors alone.

    **Saving.** What was trained travels in pickles and saved folders. What stayed as it came does not: with
    ``trainable="none"`` and "lora" the model has to be where `model` says when the encoder is used again, and its
    digest has to be the same. ``trainable="all"`` carries weights and tokeniser, and needs transformers alone.

    **Data seen before.** Compare `trained_on_` with what you test on: all-MiniLM-L6-v2 has read the captions of
    Flickr30k, of which Flickr8k is a part.

    %(threads)s

    References
    ----------
    .. [1] Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
       https://arxiv.org/abs/2106.09685
    .. [2] Reimers, Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", EMNLP 2019,
       https://arxiv.org/abs/1908.10084

    Examples
    --------
    >>> from sklearn_mm.features import PretrainedTextEncoder
    >>> from sklearn_mm.retrieval import JointEmbeddingRanker
    >>> encoder = PretrainedTextEncoder("sentence-transformers/all-MiniLM-L6-v2", trainable="lora")
    >>> ranker = JointEmbeddingRanker(encoder)  # its fit trains the adapters, too
    >>> ranker.get_params()["text_encoder__lora_rank"]
    8
    """

    _parameter_constraints: dict[str, Any] = {
        **PretrainedEncoderBase._parameter_constraints,
        "pooling": [StrOptions({"auto", "mean", "cls", "max", "last"})],
        "prompt": [str, None],
        "max_length": [positive_int, None],
    }

    def __init__(
        self,
        model: str | os.PathLike[str] = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        trainable: str = "none",
        lora_rank: int = 8,
        backbone_learning_rate: float | str = "auto",
        pooling: str = "auto",
        prompt: str | None = "auto",
        max_length: int | None = None,
        local_files_only: bool = True,
        revision: str | None = None,
        max_epochs: int = 3,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        temperature: float = 0.05,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "auto",
        checkpoint: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.trainable = trainable
        self.lora_rank = lora_rank
        self.backbone_learning_rate = backbone_learning_rate
        self.pooling = pooling
        self.prompt = prompt
        self.max_length = max_length
        self.local_files_only = local_files_only
        self.revision = revision
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.temperature = temperature
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.checkpoint = checkpoint
        self.verbose = verbose

    def _open_pretrained(self) -> OpenedModel:
        return open_text_model(
            self.model,
            pooling=self.pooling,
            prompt=self.prompt,
            max_length=self.max_length,
            local_files_only=self.local_files_only,
            revision=self.revision,
        )

    # The tower protocol -------------------------------------------------------------------------------------------

    def initialize(self, data: Any, random_state: Any = None) -> Self:
        """Open the model; the texts are only checked.

        Parameters
        ----------
        data : sequence of str
        random_state : int, RandomState or None
            From which adapters are drawn.

        Raises
        ------
        WeightsError
            The files of the model are not to be had.
        """
        validate_params(self)
        check_texts(data)
        self._begin(random_state)
        return self

    def prepare(self, data: Any) -> TokenRows:
        """Turn texts into rows of token ids, once, for many calls of `collate`.

        Warns
        -----
        TruncationWarning
            Texts are longer than the model reads.
        """
        tokenizer = self._tokenizer()
        ids, cut = tokenizer.encode(check_texts(data))
        if cut:
            shown = ", ".join(map(str, cut[:5])) + (", ..." if len(cut) > 5 else "")
            warnings.warn(
                f"{len(cut)} of {len(ids)} texts have more tokens than the {tokenizer.max_length} that "
                f"{str(self.model)!r} is given, and are cut: rows {shown}; shorten them, or split them into several",
                TruncationWarning,
                stacklevel=3,
            )
        flat = np.fromiter((token for own in ids for token in own), dtype=np.int64)
        return TokenRows(flat, np.cumsum([0, *map(len, ids)]))

    def collate(self, rows: TokenRows, rng: np.random.Generator | None = None) -> TokenBatch:
        """Make a batch for `module_`, filled up as the model is used to."""
        return pad_tokens(rows.ids, rows.lengths, self._tokenizer())

    @property
    def embed_batch_size(self) -> int:
        """Texts embedded at once."""
        return _BATCH

    def output_statistics(self, rows: TokenRows) -> tuple[Tensor, Tensor] | None:
        """Return the mean and the scale of the embedding, (n_features_out,) each, float32: what a head stands on.

        Parameters
        ----------
        rows : TokenRows
            As `prepare` returns them; 1,024 of them are embedded.
        """
        sample = rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64)]
        device = resolve_device(self.device)
        module = self.module_
        settle(module, device)
        moments = RunningMoments()
        with torch.inference_mode(), autocast(device, resolve_dtype(self.precision, device)):
            for start in range(0, len(sample), _BATCH):
                batch = self.collate(sample[start : start + _BATCH])
                moments.update(module(TokenBatch(batch.ids.to(device), batch.mask.to(device), batch.pad)).cpu().numpy())
        return moments.for_head()

    def transform(self, X: Any) -> np.ndarray:
        """Embed texts; equal ones once.

        Parameters
        ----------
        X : sequence of str, length n

        Returns
        -------
        ndarray of shape (n, n_features_out), float32
            As the model gives them: of unit length, if its files say so.
        """
        check_is_fitted(self, "identity_")
        texts = check_texts(X)
        rows = self.prepare(texts)
        number = {text: place for place, text in enumerate(dict.fromkeys(texts))}  # of the different texts
        place = np.fromiter(map(number.__getitem__, texts), dtype=np.int64)  # (n,)
        first = np.unique(place, return_index=True)[1]  # (n_different,)
        # Texts of like length beside each other: little is filled up, and nothing is computed for filling.
        order = np.argsort(rows.lengths[first], kind="stable")
        embedded = self._embed(rows[first[order]], shown=self.verbose)
        out = np.empty_like(embedded)
        out[order] = embedded
        return out[place]

    def _tokenizer(self) -> TextTokenizer:
        tokenizer = self._model().tokenizer
        if tokenizer is None:
            raise ValueError(f"{str(self.model)!r} reads no texts")
        return tokenizer

    def _check_data(self, X: Any) -> list[str]:
        return check_texts(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags
