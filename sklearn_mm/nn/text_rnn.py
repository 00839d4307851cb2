"""A gated recurrent network over words (Kiros et al. 2014), on packed texts."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sklearn_mm.nn.packed import PackedTexts, drop_words, segment_ids, segment_max, segment_mean
from sklearn_mm.registry import stored_as

__all__ = ["POOLINGS", "TextGRU"]

POOLINGS = ("last", "mean", "max")
_UNIFORM_BOUND = 0.1  # of word vectors, in the code of the full-network embedding and of VSE++


class _TimeMajor(NamedTuple):
    """The tokens of packed texts as a recurrent network reads them: all first ones, then all second ones, ...

    Attributes
    ----------
    row : Tensor of shape (n_tokens,), int64
        Where each token of the packed texts stands in that order.
    batch_sizes : Tensor of shape (longest,), int64, on the CPU
        How many texts have a first token, a second one, ...
    order : Tensor of shape (n_texts_with_tokens,), int64
        The texts by falling length; those without a token are left out.
    """

    row: Tensor
    batch_sizes: Tensor
    order: Tensor


def _time_major(lengths: Tensor) -> _TimeMajor:
    on_cpu = lengths.cpu()  # torch wants the batch sizes there
    batch_sizes = (len(lengths) - torch.cumsum(torch.bincount(on_cpu), 0))[:-1]  # (longest,)
    first_row = (torch.cumsum(batch_sizes, 0) - batch_sizes).to(lengths.device)  # where each time step starts
    by_length = torch.argsort(lengths, descending=True, stable=True)
    rank = torch.empty_like(by_length)  # of each text among the texts by length
    rank[by_length] = torch.arange(len(lengths), device=lengths.device)
    text = segment_ids(lengths)
    first_token = torch.cumsum(lengths, 0) - lengths
    time = torch.arange(len(text), device=lengths.device) - first_token[text]  # (n_tokens,)
    n_with_tokens = int((on_cpu > 0).sum())
    return _TimeMajor(first_row[time] + rank[text], batch_sizes, by_length[:n_with_tokens])


def _with_end_tokens(ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Put the id 0 behind every text."""
    ended = ids.new_zeros(len(ids) + len(lengths))
    ended[torch.arange(len(ids), device=ids.device) + segment_ids(lengths)] = ids
    return ended, lengths + 1


@stored_as("nn.TextGRU")
class TextGRU(nn.Module):
    """Embed texts by a one-layer gated recurrent network.

    Parameters
    ----------
    n_words : int
        Words of the vocabulary; ids run from 1 to n_words.
    n_components : int
        Width of the output.
    word_dim : int
        Length of the word vectors.
    hidden_size : int or None
        Width of the state; None for `n_components`.
    bidirectional : bool
        Read each text from its end as well, and join both directions' states.
    pooling : {"last", "mean", "max"}
        The state after the last token of each text (backwards: after its first), or the mean or maximum of its states.
    end_token : bool
        Read one more token with a vector of its own, id 0, after each text.
    dropout : float
        Share of the words whose vector is replaced by 0 in training.
    word_learning_rate : float
        Factor on the learning rate of the word vectors.

    Notes
    -----
    Input is a `PackedTexts`; its shifts are not looked at. The states are those of the texts themselves: nothing is
    padded, and the others in the batch are of no effect. A text without a token has the initial state, 0.

    What is pooled is the output, where it is as wide and has one direction; a linear map follows otherwise.
    """

    def __init__(
        self,
        n_words: int,
        n_components: int,
        *,
        word_dim: int = 300,
        hidden_size: int | None = None,
        bidirectional: bool = False,
        pooling: str = "last",
        end_token: bool = False,
        dropout: float = 0.0,
        word_learning_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "n_words": n_words,
            "n_components": n_components,
            "word_dim": word_dim,
            "hidden_size": hidden_size,
            "bidirectional": bidirectional,
            "pooling": pooling,
            "end_token": end_token,
            "dropout": dropout,
            "word_learning_rate": word_learning_rate,
        }
        self.learning_rate_factors = {"words": word_learning_rate}
        # no padding_idx: id 0 is the end token, whose vector is trained
        self.words = nn.Embedding(n_words + 1, word_dim)
        width = n_components if hidden_size is None else hidden_size
        self.recurrent = nn.GRU(word_dim, width, bidirectional=bidirectional)
        self.state_width = width * (1 + bidirectional)
        is_embedding = width == n_components and not bidirectional
        self.output: nn.Module = nn.Identity() if is_embedding else nn.Linear(self.state_width, n_components)
        self.pooling = pooling
        self.end_token = end_token
        self.dropout = dropout
        self._initialize()

    def _initialize(self) -> None:
        """Draw the weights as Kiros et al.: small and uniform, square ones orthogonal, biases 0."""
        nn.init.uniform_(self.words.weight, -_UNIFORM_BOUND, _UNIFORM_BOUND)
        for name, parameter in self.recurrent.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
                continue
            # torch stacks the matrices of the three gates; each is drawn as one of its own
            for gate in parameter.data.chunk(3):
                if gate.shape[0] == gate.shape[1]:
                    nn.init.orthogonal_(gate)
                else:
                    nn.init.uniform_(gate, -_UNIFORM_BOUND, _UNIFORM_BOUND)
        if isinstance(self.output, nn.Linear):
            nn.init.xavier_uniform_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, texts: PackedTexts) -> Tensor:
        """Embed `texts`: (n_texts, n_components) float32."""
        ids, lengths = texts.ids, texts.lengths
        if self.end_token:
            ids, lengths = _with_end_tokens(ids, lengths)
        words = self.words(ids)  # (n_tokens, word_dim)
        if self.training and self.dropout:
            words = drop_words(words, self.dropout)
        # torch's recurrent networks refuse a sequence of no steps
        if not len(ids):
            return self.output(words.new_zeros(len(lengths), self.state_width))
        return self.output(self._pool(words, lengths))

    def _pool(self, words: Tensor, lengths: Tensor) -> Tensor:
        layout = _time_major(lengths)
        token = torch.empty_like(layout.row)
        token[layout.row] = torch.arange(len(token), device=token.device)
        # built by hand, as pack_padded_sequence would want padded texts
        states, last = self.recurrent(PackedSequence(words[token], layout.batch_sizes))
        if self.pooling == "last":
            joined = last.transpose(0, 1).flatten(1)  # (n_texts_with_tokens, state width)
            # texts without a token, of which `order` knows nothing, keep the initial state
            return joined.new_zeros(len(lengths), self.state_width).index_copy(0, layout.order, joined)
        pool = segment_mean if self.pooling == "mean" else segment_max
        return pool(states.data[layout.row], lengths)  # text by text again
