"""Contrastive training of an embedder."""

from __future__ import annotations

from typing import Any, Final

from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from nearer.models.encode import Embedder, use_all_cores
from nearer.progress import Progress
from nearer.store import WorkArea
from nearer.train import shard
from nearer.train.collate import EmbedderCollator, truncated_share
from nearer.train.loop import fit
from nearer.train.loss import ContrastiveLoss
from nearer.train.measure import retrieval_ndcg
from nearer.train.recipe import Method, Recipe, Result
from nearer.train.rows import Material
from nearer.train.schedule import Schedule
from nearer.train.world import World

_PROBES = 4
"""Queries and passages by whose scores a saved model is known again."""

_MANY_CUT: Final = 0.2
"""Share of cut answers from which on it is said. On Korean Wikipedia paragraphs, with 93 % of them cut at 64 tokens,
training cost 4.8 % of nDCG@10; on whole ones it cost nothing (docs/log.md, 2026-11-30). The share itself is a guess."""


def train_embedder(
    embedder: Embedder,
    material: Material,
    *,
    recipe: Recipe,
    method: Method,
    batch_size: int,
    scale: float,
    negatives_per_query: int,
    max_query_tokens: int,
    max_passage_tokens: int,
    work: WorkArea,
    progress: Progress,
) -> tuple[Result, dict[str, Any]]:
    """Train an embedder in place.

    Args:
        embedder: its contract says prefixes, normalisation and similarity, in training as everywhere.
        material: what trains and what validates.
        recipe: how to learn.
        method: how the processes share the work.
        batch_size: rows a step, over all processes.
        scale: inverse temperature of the loss.
        negatives_per_query: hard negatives a row.
        max_query_tokens: longer queries are cut.
        max_passage_tokens: longer texts are cut.
        work: for checkpoints.
        progress: hears of it.

    Returns:
        How it went, and facts for the manifest.
    """
    use_all_cores()
    model, contract = embedder.model, embedder.contract
    longest = model.max_seq_length or max_passage_tokens
    schedule = Schedule(material=material, hard=negatives_per_query, random=0, seed=recipe.seed)
    collator = EmbedderCollator(
        material=material,
        schedule=schedule,
        tokenizer=model.tokenizer,
        rows=batch_size,
        query_prefix=contract.query_prefix,
        passage_prefix=contract.passage_prefix,
        max_query_tokens=min(max_query_tokens, longest),
        max_passage_tokens=min(max_passage_tokens, longest),
        groups=recipe.device == "cpu",
        world=method.world,
        chunk=method.chunk,
        plain=method.plain,
        longest=method.rehearse,
    )
    positives = sorted({row.positive for row in material.rows})
    cut_queries = truncated_share(
        model.tokenizer,
        [contract.query_prefix + text for text in material.queries.values()],
        max_tokens=collator.max_query_tokens,
    )
    cut_passages = truncated_share(
        model.tokenizer,
        [contract.passage_prefix + material.texts[key] for key in positives],
        max_tokens=collator.max_passage_tokens,
    )
    facts = {
        "rows": len(material.rows),
        "validation_queries": len(material.validation.queries),
        "validation_passages": len(material.validation.passages),
        "truncated_queries": round(cut_queries, 4),
        "truncated_passages": round(cut_passages, 4),
    }
    progress.say("training the embedder", steps=recipe.steps, batch_size=batch_size, **facts)
    if cut_passages > _MANY_CUT:
        progress.warn(
            f"{cut_passages:.0%} of the passages that answer a query are cut in training, at "
            f"{collator.max_passage_tokens} tokens: where the answer lies behind that, the model learns to find what "
            "does not answer",
            way_out="a larger train.embedding.max_passage_tokens"
            if max_passage_tokens < longest
            else "smaller chunks (generate.chunk.max_tokens): the model takes no more",
        )
    result = fit(
        model,
        trainer_class=SentenceTransformerTrainer,
        arguments_class=SentenceTransformerTrainingArguments,
        collator=collator,
        loss=ContrastiveLoss(model, scale=scale, cosine=bool(contract.normalize or contract.similarity == "cosine")),
        validate=lambda: retrieval_ndcg(embedder, material.validation, material.texts, world=method.world),
        probe=lambda: probe_embedder(embedder, material, world=method.world),
        recipe=recipe,
        method=method,
        work=work,
        examples_per_step=batch_size,
        base_may_win=True,
        alike=material.validation.alike,
        progress=progress,
    )
    return result, facts


def probe_embedder(embedder: Embedder, material: Material, *, world: World) -> list[float]:
    """Scores of the first validation queries against the first validation passages."""
    contract = embedder.contract
    queries = [text for text, _ in zip(material.validation.queries.values(), range(_PROBES), strict=False)]
    passages = [material.texts[key] for key in material.validation.passages[:_PROBES]]
    left = shard.vectors(
        embedder, queries, prefix=contract.query_prefix, max_tokens=contract.max_query_tokens, world=world
    )
    right = shard.vectors(
        embedder, passages, prefix=contract.passage_prefix, max_tokens=contract.max_passage_tokens, world=world
    )
    return [float(score) for score in (left @ right.T).reshape(-1)]
