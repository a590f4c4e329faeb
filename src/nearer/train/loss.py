"""The losses: contrastive for embedders, binary or listwise for rerankers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nearer.train.world import World

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

    separable: ClassVar[bool] = False
    """A text's share of the loss is not known before all other texts are."""

    def __init__(self, model: nn.Module, *, scale: float, cosine: bool = True) -> None:
        super().__init__()
        self.model = model
        self.scale = scale
        self.cosine = cosine

    def forward(self, features: Sequence[Mapping[str, Tensor]], labels: Tensor) -> Tensor:
        """The loss of one step.

        Args:
            features: the queries (b rows together), then the texts (p rows together), each in any number of groups.
            labels: (b, p) relation of each query to each text: POSITIVE once a row, NEGATIVE, or NEITHER.
        """
        vectors = self._normal(torch.cat([self.outputs(group) for group in features]))  # (b + p, d)
        return contrast(vectors[: len(labels)], vectors[len(labels) :], labels, scale=self.scale)

    def outputs(self, features: Mapping[str, Tensor]) -> Tensor:
        """The vectors (n, d) of one group of texts, as the model gives them."""
        vectors: Tensor = self.model(dict(features))["sentence_embedding"].float()
        return vectors

    def slopes(self, outputs: Sequence[Tensor], labels: Mapping[str, Any], *, world: World) -> tuple[Tensor, Tensor]:
        """The loss of the whole step over all processes, and its gradient with respect to this process's vectors.

        Each process scores its own queries against the texts of all; what the others' queries ask of its texts comes
        back with the sum of the gradients. So the model's gradient is that of the whole batch, however its forward
        passes are cut (Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, sec.
        3), and no gradient has to pass through a collective.

        Args:
            outputs: of the groups of queries, then of the groups of texts; without graph.
            labels: what `EmbedderCollator` says of them.
            world: all processes.

        Returns:
            The loss; the gradients (n, d) in the order of the outputs.
        """
        count = labels["query_groups"]
        order, relations = labels["order"], labels["relations"]
        queries = torch.cat(list(outputs[:count])).detach().requires_grad_()  # (b, d)
        own = torch.cat(list(outputs[count:])).detach()[order]  # (p, d)
        parts = world.rows(own)
        texts = torch.cat(parts).requires_grad_()  # (p of all, d)
        with torch.enable_grad():
            loss = contrast(self._normal(queries), self._normal(texts), relations, scale=self.scale)
            loss = loss * (len(queries) / labels["rows"])
        of_queries, of_texts = torch.autograd.grad(loss, (queries, texts))
        start = sum(map(len, parts[: world.rank]))
        mine = world.total(of_texts)[start : start + len(own)]
        back = torch.empty_like(mine)
        back[order] = mine
        return world.total(loss.detach()), torch.cat([of_queries, back])

    def _normal(self, vectors: Tensor) -> Tensor:
        return functional.normalize(vectors, dim=-1) if self.cosine else vectors


def contrast(queries: Tensor, texts: Tensor, labels: Tensor, *, scale: float) -> Tensor:
    """InfoNCE of vectors (b, d) and (p, d) under relations (b, p); see `ContrastiveLoss`."""
    with torch.autocast(device_type=queries.device.type, enabled=False):
        scores = scale * (queries @ texts.T)  # (b, p)
        scores = scores.masked_fill(labels == NEITHER, float("-inf"))
        return functional.cross_entropy(scores, (labels == POSITIVE).int().argmax(dim=1))


class _OfLogits(nn.Module):
    model: nn.Module

    def outputs(self, features: Mapping[str, Tensor]) -> Tensor:
        """The logits (n,) of one group of pairs."""
        logits: Tensor = self.model(dict(features))["scores"].float().reshape(-1)
        return logits


class PairLoss(_OfLogits):
    """Binary cross-entropy of query-text pairs, as sentence-transformers' BinaryCrossEntropyLoss, on ready features.

    Args:
        model: a CrossEncoder with one label.
        positive_weight: what a pair with label 1 counts for, a pair with label 0 counting 1.
    """

    separable: ClassVar[bool] = True
    """The loss is a mean over pairs: each group of them can be done with before the next."""

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

    def slopes(self, outputs: Sequence[Tensor], labels: Tensor, *, world: World) -> tuple[Tensor, Tensor]:
        """This process's part of the step's loss, and the loss's gradient with respect to its logits.

        Args:
            outputs: of groups of pairs; without graph.
            labels: (n, 2) label and share of each pair in the mean over all processes.
            world: all processes; none of them is asked.
        """
        logits = torch.cat(list(outputs)).detach().requires_grad_()  # (n,)
        weight = self.get_buffer("positive_weight")
        with torch.enable_grad():
            each = functional.binary_cross_entropy_with_logits(
                logits, labels[:, 0], pos_weight=weight, reduction="none"
            )
            loss = (each * labels[:, 1]).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        return loss.detach() * world.size, gradient


class ListLoss(_OfLogits):
    """Softmax cross-entropy of each answer against its own negatives, over a cross-encoder's logits.

    Gao, Dai & Callan 2021, "Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline" (ECIR), localized
    contrastive estimation: the mean over answers of -log(exp(s(q, p+)) / sum over p in {p+} and the answer's negatives
    of exp(s(q, p))). With lists of one length it is `cross_entropy` of their logits.

    Args:
        model: a CrossEncoder with one label.
    """

    separable: ClassVar[bool] = False
    """A list may lie in several groups."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Sequence[Mapping[str, Tensor]], labels: Tensor, **_ignored: Any) -> Tensor:
        """The loss of one step.

        Args:
            features: the pairs in any number of groups (n rows together).
            labels: (n, 3): 1.0 where the text answers the query, else 0.0; what the pair's list counts for, all lists
                together 1; the number of the list.
        """
        return _lists(torch.cat([self.outputs(group) for group in features]), labels)

    def slopes(self, outputs: Sequence[Tensor], labels: Tensor, *, world: World) -> tuple[Tensor, Tensor]:
        """This process's part of the step's loss, and the loss's gradient with respect to its logits.

        Args:
            outputs: of groups of pairs; without graph.
            labels: as in `forward`; the lists of all processes count 1 together.
            world: all processes; none of them is asked.
        """
        logits = torch.cat(list(outputs)).detach().requires_grad_()  # (n,)
        with torch.enable_grad():
            loss = _lists(logits, labels)
        (gradient,) = torch.autograd.grad(loss, logits)
        return loss.detach() * world.size, gradient


def _lists(logits: Tensor, labels: Tensor) -> Tensor:
    answers, shares, lists = labels[:, 0] > 0, labels[:, 1], labels[:, 2].long()
    count = int(lists.max()) + 1
    top = logits.new_full((count,), float("-inf")).scatter_reduce(0, lists, logits.detach(), "amax")
    sums = logits.new_zeros(count).index_add(0, lists, (logits - top[lists]).exp())
    surprise = sums.log() + top  # (lists,)
    return ((surprise[lists[answers]] - logits[answers]) * shares[answers]).sum()
