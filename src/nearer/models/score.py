"""Query-passage pairs to relevance scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nearer import process
from nearer.models.contract import Contract
from nearer.models.encode import batches, pad, tokenize, use_all_cores
from nearer.models.precision import Precision
from nearer.progress import Progress, Silent

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder

_WINDOW = 4096  # pairs that are tokenised and sorted by length at a time


@dataclass(frozen=True, kw_only=True)
class Reranker:
    """A CrossEncoder with one label and the contract by which it is used."""

    contract: Contract
    model: CrossEncoder
    precision: Precision = "fp32"

    def score(
        self, pairs: Sequence[tuple[str, str]], *, batch_tokens: int = 8192, progress: Progress | None = None
    ) -> np.ndarray:
        """Raw logits of (query, rendered passage) pairs, higher is more relevant.

        Prefixes of the contract are added here; pairs over its `max_pair_tokens` lose tokens of their longer side.

        Returns:
            (n,) float32, in the order of the pairs.
        """
        import torch

        use_all_cores()
        self.model.eval()

        def logits(features: dict[str, torch.Tensor]) -> np.ndarray:
            moved = {name: tensor.to(self.model.device) for name, tensor in features.items()}
            scores: np.ndarray = self.model(moved)["scores"].float().reshape(-1).cpu().numpy()
            return scores

        with torch.inference_mode():
            return score_pairs(
                pairs,
                logits=logits,
                tokenizer=self.model.tokenizer,
                contract=self.contract,
                batch_tokens=batch_tokens,
                progress=progress,
            )


def score_pairs(
    pairs: Sequence[tuple[str, str]],
    *,
    logits: Callable[[dict[str, torch.Tensor]], np.ndarray],
    tokenizer: Any,
    contract: Contract,
    batch_tokens: int,
    progress: Progress | None,
) -> np.ndarray:
    """What PyTorch and ONNX rerankers have in common: pairs cut as the contract says, in batches of like length.

    Args:
        pairs: query and rendered passage.
        logits: from padded features (rows, longest), on the CPU, to (rows,) logits.
        tokenizer: the model's.
        contract: the model's.
        batch_tokens: padded tokens a batch.
        progress: hears of one step a window of pairs.

    Returns:
        (n,) float32, in the order of the pairs.
    """
    scores = np.zeros(len(pairs), dtype=np.float32)
    for start in (progress or Silent()).track(range(0, len(pairs), _WINDOW), what="scoring pairs"):
        window = pairs[start : start + _WINDOW]
        encoded = tokenize(
            tokenizer,
            [contract.query_prefix + query for query, _ in window],
            [contract.passage_prefix + passage for _, passage in window],
            max_tokens=contract.max_pair_tokens,
        )
        for rows in batches([len(ids) for ids in encoded["input_ids"]], batch_tokens=batch_tokens):
            process.STOP.check()
            scores[[start + row for row in rows]] = logits(pad(tokenizer, encoded, rows))
    return scores
