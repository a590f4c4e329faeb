"""Contrastive training of an embedder."""

from __future__ import annotations

from typing import Any

from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from nearer.models.encode import Embedder, use_all_cores
from nearer.progress import Progress
from nearer.store import WorkArea
from nearer.train.collate import EmbedderCollator, truncated_share
from nearer.train.loop import Recipe, Result, fit
from nearer.train.loss import ContrastiveLoss
from nearer.train.measure import retrieval_ndcg
from nearer.train.rows import Material
from nearer.train.schedule import Schedule


def train_embedder(
    embedder: Embedder,
    material: Material,
    *,
    recipe: Recipe,
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
        batch_size: rows a step.
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
        groups=model.device.type == "cpu",
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
    result = fit(
        model,
        trainer_class=SentenceTransformerTrainer,
        arguments_class=SentenceTransformerTrainingArguments,
        collator=collator,
        loss=ContrastiveLoss(model, scale=scale, cosine=bool(contract.normalize or contract.similarity == "cosine")),
        validate=lambda: retrieval_ndcg(embedder, material.validation, material.texts),
        recipe=recipe,
        work=work,
        examples_per_step=batch_size,
        base_may_win=True,
        progress=progress,
    )
    return result, facts
