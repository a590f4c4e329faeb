"""The two losses: contrastive for embedders, binary for rerankers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

POSITIVE, NEGATIVE, NEITHER = 1, 0, -1


class ContrastiveLoss(nn.Module):
    """InfoNCE over the batch: each query against its own answer and all texts of the batch that do not answer it.

    van den Oord et al. 2018, eq. 4, with similarity `scale` x cosine (or dot product): the mean over queries of
    -log(exp(s(q, p+)) / sum over p in {p+} and negatives of exp(s(q, p))). Texts that are neither answer nor negative
    (duplicates of the answer, other answers, other passages of a document that answers as a whole) are left out of the
    sum. Without any of these it is sentence-transformers' MultipleNegativesRankingLoss.

    Args:
        model: a SentenceTransformer.
        scale: inverse temperature.
        cosine: normalise the vectors first; else plain dot products.
    """

    def __init__(self, model: nn.Module, *, scale: float, cosine: bool = True) -> None:
        super().__init__()
        self.model = model
        self.scale = scale
        self.cosine = cosine

    def forward(self, features: Sequence[Mapping[str, Tensor]], labels: Tensor) -> Tensor:
        """The loss of one step.

        Args:
            features: the queries (b rows), then the texts in any number of groups (p rows together).
            labels: (b, p) relation of each query to each text: POSITIVE once a row, NEGATIVE, or NEITHER.
        """
        queries = self._embed(features[0])  # (b, d)
        texts = torch.cat([self._embed(group) for group in features[1:]])  # (p, d)
        return contrast(queries, texts, labels, scale=self.scale)

    def _embed(self, features: Mapping[str, Tensor]) -> Tensor:
        vectors: Tensor = self.model(dict(features))["sentence_embedding"].float()
        return functional.normalize(vectors, dim=-1) if self.cosine else vectors


def contrast(queries: Tensor, texts: Tensor, labels: Tensor, *, scale: float) -> Tensor:
    """InfoNCE of vectors (b, d) and (p, d) under relations (b, p); see `ContrastiveLoss`."""
    with torch.autocast(device_type=queries.device.type, enabled=False):
        scores = scale * (queries @ texts.T)  # (b, p)
        scores = scores.masked_fill(labels == NEITHER, float("-inf"))
        return functional.cross_entropy(scores, (labels == POSITIVE).int().argmax(dim=1))


class PairLoss(nn.Module):
    """Binary cross-entropy of query-text pairs, as sentence-transformers' BinaryCrossEntropyLoss, on ready features.

    Args:
        model: a CrossEncoder with one label.
        positive_weight: what a pair with label 1 counts for, a pair with label 0 counting 1.
    """

    def __init__(self, model: nn.Module, *, positive_weight: float) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("positive_weight", torch.tensor(positive_weight), persistent=False)

    def forward(self, features: Sequence[Mapping[str, Tensor]], labels: Tensor, **_ignored: Any) -> Tensor:
        """The loss of one step.

        Args:
            features: the pairs in any number of groups (n rows together).
            labels: (n,) 1.0 where the text answers the query, else 0.0.
        """
        logits = torch.cat([self.model(dict(group))["scores"].float().reshape(-1) for group in features])  # (n,)
        weight = self.get_buffer("positive_weight")
        return functional.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=weight)
