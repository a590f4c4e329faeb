"""Training of a reranker: classification of query-passage pairs, each by itself or against others."""

from __future__ import annotations

from typing import Any

from sentence_transformers import CrossEncoderTrainer, CrossEncoderTrainingArguments

from nearer.models.encode import use_all_cores
from nearer.models.score import Reranker
from nearer.progress import Progress
from nearer.store import WorkArea
from nearer.train import shard
from nearer.train.collapse import COLLAPSE, COLLAPSED, LEAVE_THE_PLATEAU
from nearer.train.collate import RerankerCollator, pair_truncated_share
from nearer.train.lesson import Lesson
from nearer.train.loop import fit
from nearer.train.loss import ListLoss, PairLoss
from nearer.train.measure import Measured, reranking_ndcg
from nearer.train.recipe import Method, Recipe, Result
from nearer.train.rows import Material
from nearer.train.schedule import Schedule
from nearer.train.world import World

_PROBES = 8
"""Pairs by whose scores a saved model is known again."""


def train_reranker(
    reranker: Reranker,
    material: Material,
    *,
    recipe: Recipe,
    method: Method,
    batch_size: int,
    lesson: Lesson,
    has_head: bool,
    work: WorkArea,
    progress: Progress,
) -> tuple[Result, dict[str, Any]]:
    """Train a reranker in place.

    Args:
        reranker: its contract says how long a pair may be.
        material: what trains and what validates.
        recipe: how to learn.
        method: how the processes share the work.
        batch_size: pairs a step, over all processes; of whole lists, if they are what is learnt from.
        lesson: what it learns from.
        has_head: the base model already is a reranker; a fresh head's random weights are never published.
        work: for checkpoints.
        progress: hears of it.

    Returns:
        How it went, and facts for the manifest.
    """
    use_all_cores()
    model = reranker.model
    longest = reranker.contract.max_pair_tokens or 512
    schedule = Schedule(
        material=material,
        hard=lesson.hard_negatives,
        random=lesson.random_negatives,
        seed=recipe.seed,
        nearest=lesson.nearest,
        ease=round(lesson.curriculum * recipe.steps * batch_size / lesson.width) if lesson.nearest else 0,
    )
    collator = RerankerCollator(
        material=material,
        schedule=schedule,
        tokenizer=model.tokenizer,
        pairs=batch_size,
        query_prefix=reranker.contract.query_prefix,
        passage_prefix=reranker.contract.passage_prefix,
        max_pair_tokens=longest,
        groups=recipe.device == "cpu",
        lists=lesson.listwise,
        world=method.world,
        chunk=method.chunk,
        plain=method.plain,
        longest=method.rehearse,
    )
    answers = [(material.queries[row.query_id], material.texts[row.positive]) for row in material.rows]
    facts = {
        "rows": len(material.rows),
        "pairs_a_row": lesson.width,
        "negatives_from": "retriever" if lesson.nearest else "dataset",
        "retrieval_cpu_seconds": round(lesson.cpu_seconds, 3),
        "queries_without_negatives": sum(not keys for keys in material.negatives.values()),
        "validation_queries": len(material.validation.queries),
        "validation_pairs": sum(map(len, lesson.candidates.values())),
        "truncated_pairs": round(pair_truncated_share(model.tokenizer, answers, max_tokens=longest), 4),
    }
    progress.say("training the reranker", steps=recipe.steps, batch_size=batch_size, **facts)
    deviation: list[float | None] = []

    def validate() -> Measured:
        found = reranking_ndcg(reranker, lesson.candidates, material.validation, material.texts, world=method.world)
        deviation[:] = [found.deviation]
        return found

    # As many negatives as there are share the weight of one positive: the base rate is one half.
    loss = ListLoss(model) if lesson.listwise else PairLoss(model, positive_weight=float(max(1, lesson.width - 1)))
    result = fit(
        model,
        trainer_class=CrossEncoderTrainer,
        arguments_class=CrossEncoderTrainingArguments,
        collator=collator,
        loss=loss,
        validate=validate,
        probe=lambda: probe_reranker(reranker, material, world=method.world),
        recipe=recipe,
        method=method,
        work=work,
        examples_per_step=batch_size,
        base_may_win=has_head,
        alike=material.validation.alike,
        progress=progress,
    )
    for last in deviation:
        if last is not None:
            facts["score_deviation"] = round(last, 4)
            if last < COLLAPSED:
                progress.warn(f"{COLLAPSE}. Try {LEAVE_THE_PLATEAU}", score_deviation=facts["score_deviation"])
    return result, facts


def probe_reranker(reranker: Reranker, material: Material, *, world: World) -> list[float]:
    """Logits of the first candidates of validation."""
    validation = material.validation
    pairs = [
        (validation.queries[query], material.texts[key])
        for query, keys in validation.candidates.items()
        for key in keys
    ]
    return [float(score) for score in shard.logits(reranker, pairs[:_PROBES], world=world)]
