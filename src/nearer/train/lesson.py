"""What a reranker learns from: its negatives, and what its checkpoints are chosen by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nearer.corpus.dataset import Dataset
from nearer.models.load import load_embedder
from nearer.process import release_memory
from nearer.progress import Progress
from nearer.records import Hit
from nearer.store import WorkArea
from nearer.train.lists import keep_lists, kept_lists, retrieve
from nearer.train.orders import RerankerTraining, Task
from nearer.train.rows import Material
from nearer.train.world import World


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a reranker learns from, and what its checkpoints are chosen by.

    Args:
        listwise: from each answer against its own negatives; else from each pair by itself.
        hard_negatives: of the material, with an answer.
        random_negatives: with an answer.
        nearest: the material's negatives are the retriever's ranks, and these are the first of them that count in the
            end; None: they were mined, and all count.
        curriculum: share of the training after which that is so.
        candidates: validation query id → keys that are put in order.
        ranked: validation query id → what the retriever gives, with its scores; empty where it is not known.
        cpu_seconds: that the retriever took.
    """

    listwise: bool
    hard_negatives: int
    random_negatives: int
    nearest: int | None
    curriculum: float
    candidates: Mapping[str, Sequence[str]]
    ranked: Mapping[str, list[Hit]]
    cpu_seconds: float

    @property
    def width(self) -> int:
        """Pairs of an answer with its negatives."""
        return 1 + self.hard_negatives + self.random_negatives


def prepare_lesson(
    task: Task,
    training: RerankerTraining,
    dataset: Dataset,
    material: Material,
    *,
    world: World,
    device: str,
    work: WorkArea,
    progress: Progress,
) -> tuple[Material, Lesson]:
    """See where negatives come from, and what is put in order.

    The retriever's lists are found once a run, by all processes, and kept: a run that goes on has the same.

    Returns:
        The material, its negatives replaced by the retriever's ranks where that is known and not refused; the lesson.
    """
    lists = None
    own = task.retriever is not None and training.negatives_from != "dataset"
    if task.retriever is not None:
        lists = world.share(kept_lists(work) if world.main else None)
        if lists is None:
            progress.say("retrieving what is to be reranked", retriever=task.retriever.name)
            lists = retrieve(
                load_embedder(
                    task.retriever,
                    device=device,  # type: ignore[arg-type]
                    passage_template=dataset.chunking.template,
                ),
                material,
                depth=training.negatives_depth if own else None,
                passages=training.negatives_passages,
                seed=task.seed,
                world=world,
            )
            lists = world.share(lists)  # those of another process may differ by rounding
            if world.main:
                keep_lists(lists, work)
            release_memory()  # of the retriever
        if own:
            material = replace(material, negatives={query: tuple(keys) for query, keys in lists.negatives.items()})
    lesson = Lesson(
        listwise=training.loss == "listwise",
        hard_negatives=training.hard_negatives,
        random_negatives=training.random_negatives,
        nearest=training.rerank_depth if own else None,
        curriculum=training.curriculum,
        candidates={
            query: [hit.target for hit in hits[: training.rerank_depth]] for query, hits in lists.candidates.items()
        }
        if lists
        else material.validation.candidates,
        ranked=lists.candidates if lists else {},
        cpu_seconds=lists.cpu_seconds if lists else 0.0,
    )
    return material, lesson
