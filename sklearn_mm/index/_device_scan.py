"""The scan of an exact search where torch holds the items on a GPU: as `_scan`, with whole blocks at once."""

from typing import Any

import numpy as np
import torch

from sklearn_mm.index._scan import Best, Items, lengths_of

__all__ = ["check_tensor", "is_elsewhere", "longest_of", "scan_on_device"]

_N_QUERY = 1024  # queries and items in a block of scores: 256 MB of float32
_N_ITEMS = 65_536
_DENSE = 1 / 32  # above this share of candidates a block is thinned out before they are scored again
_PAIRS_AT_ONCE = 65_536  # whose vectors are held in float64
_LONGEST = 1e18  # products stay within float32, as for arrays
_UNIT_ROUNDOFF = float(np.finfo(np.float32).eps) / 2
_TF32_ROUNDOFF = 2.0**-11


def is_elsewhere(X: Any) -> bool:
    """Return whether X is a tensor that numpy cannot see."""
    return isinstance(X, torch.Tensor) and X.device.type != "cpu"


def check_tensor(X: torch.Tensor, n_components: int | None, dtype: str) -> torch.Tensor:
    """Return a tensor (n, n_components) of that dtype where it is, if it holds vectors that can be searched."""
    if X.ndim != 2 or not X.numel():
        raise ValueError(f"X must be a non-empty tensor of shape (n, n_components), got shape {tuple(X.shape)}")
    if n_components is not None and X.shape[1] != n_components:
        raise ValueError(f"X has {X.shape[1]} components, but the index holds vectors of {n_components}")
    part = X.detach().to(getattr(torch, dtype)).contiguous()
    wrong = part != X if dtype == "int8" else ~torch.isfinite(part)
    if dtype != "int8":
        wrong = wrong | (part.float().abs() * X.shape[1] ** 0.5 > _LONGEST)
    if bool(wrong.any()):
        row = int(wrong.any(1).int().argmax())
        raise ValueError(f"X holds NaN, infinity or a value that {dtype} cannot hold in row {row}")
    return part


def longest_of(part: torch.Tensor) -> float:
    """Return the length of the longest vector."""
    return max(
        float(torch.linalg.vector_norm(some.double(), dim=1).max()) for some in torch.split(part, _PAIRS_AT_ONCE)
    )


def scan_on_device(items: Items, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the k best items of each query (n_query, d): scores (float32) and places (int64), each (n_query, k)."""
    blocks, found = items.blocks(_N_ITEMS), []
    with torch.inference_mode():
        for start in range(0, len(queries), _N_QUERY):
            block = queries[start : start + _N_QUERY]
            best = Best(len(block), k)
            error = _error(block, items.longest)
            for part, first, places in blocks:
                vectors: torch.Tensor = part[
                    places if isinstance(places, slice) else torch.from_numpy(places).to(part.device)
                ]
                query, item, score = _candidates(torch.from_numpy(block).to(part.device), vectors, error, best)
                index = item + (first + places.start) if isinstance(places, slice) else places[item] + first
                best.merge(query, index, score)
            found.append(best)
    return np.concatenate([best.scores for best in found]), np.concatenate([best.indices for best in found])


def _error(queries: np.ndarray, longest: float) -> np.ndarray:
    """Bound (n_query,) how far the scores of the fast product are off."""
    roundoff = queries.shape[1] * _UNIT_ROUNDOFF + 8 * _UNIT_ROUNDOFF
    if torch.backends.cuda.matmul.allow_tf32:
        roundoff += 3 * _TF32_ROUNDOFF  # of both factors
    return np.asarray(roundoff * longest * lengths_of(queries))


def _candidates(
    queries: torch.Tensor, items: torch.Tensor, error: np.ndarray, best: Best
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return query, item and exact score (n,) of pairs that may belong to the best, and few more."""
    k, vectors = best.scores.shape[1], items.float()
    scores = queries @ vectors.T  # (n_query, n_items)
    margin = torch.from_numpy(error).to(scores)[:, None]
    # A rounding of the bound itself is covered by taking a little more of it.
    candidate = scores >= torch.from_numpy(best.scores[:, -1:]).to(scores) - 1.01 * margin
    if int(candidate.count_nonzero()) > _DENSE * candidate.numel() and k < len(items):
        candidate &= scores >= scores.topk(k, dim=1).values[:, -1:] - 2.02 * margin
        if int(candidate.count_nonzero()) > _DENSE * candidate.numel():
            # float32 cannot tell most of them apart; of equals the first come first.
            exact = (queries.double() @ vectors.double().T).float()
            nearest = torch.sort(exact, dim=1, descending=True, stable=True).indices[:, :k]
            candidate = torch.zeros_like(candidate).scatter_(1, nearest, True)
    query, item = candidate.nonzero(as_tuple=True)
    scored = [
        (queries[one].double() * vectors[other].double()).sum(1).float()
        for one, other in zip(torch.split(query, _PAIRS_AT_ONCE), torch.split(item, _PAIRS_AT_ONCE), strict=True)
    ]
    return query.cpu().numpy(), item.cpu().numpy(), torch.cat(scored).cpu().numpy()
