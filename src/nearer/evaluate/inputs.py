"""What the inputs of an evaluation say about each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nearer.errors import NearerError
from nearer.evaluate.lineup import BASE_RERANKER, OWN_EMBEDDER, OWN_RERANKER
from nearer.models.contract import Contract
from nearer.models.source import ModelSource
from nearer.progress import Progress
from nearer.store import Store

if TYPE_CHECKING:
    from nearer.corpus.dataset import Dataset


def without_idle(sources: Mapping[str, ModelSource], progress: Progress) -> dict[str, ModelSource]:
    """Leave out a base reranker that scores no pairs yet, and today's models that are among the others.

    Args:
        sources: models by role.
        progress: hears what is left out.
    """
    from nearer.models.load import is_cross_encoder

    kept = dict(sources)
    base = kept.get(BASE_RERANKER)
    if base is not None and not is_cross_encoder(base):
        progress.say(f"{base.name} is no cross-encoder yet: no base reranker is compared")
        del kept[BASE_RERANKER]
    today = kept.get(OWN_RERANKER)
    if today is not None and BASE_RERANKER in kept and kept[BASE_RERANKER].fingerprint == today.fingerprint:
        del kept[BASE_RERANKER]
    return kept


def incumbent_role(sources: Mapping[str, ModelSource]) -> str | None:
    """The role of today's embedder: its own, that of another with the same bytes, or the base model's."""
    own = sources.get(OWN_EMBEDDER)
    if own is None:
        return "base" if "base" in sources else None
    same = (role for role in ("base", "tuned") if role in sources and sources[role].fingerprint == own.fingerprint)
    return next(same, OWN_EMBEDDER)


def disagreements(dataset: Dataset, contract: Contract) -> list[str]:
    """Where a model's own contract asks for other passages than the dataset holds; both sides shown."""
    chunking = dataset.chunking
    pairs = [("passage template", contract.passage_template, chunking.template)]
    if chunking.chunker is not None and contract.chunker is not None:
        pairs += [("chunker", contract.chunker, chunking.chunker)]
        pairs += [("tokens a chunk", str(contract.chunk_tokens), str(chunking.max_tokens))]
    return [f"{what}: model {ours!r}, dataset {theirs!r}" for what, ours, theirs in pairs if ours != theirs]


def warn(sources: Mapping[str, ModelSource], dataset: Dataset, mark: str, progress: Progress) -> None:
    """Say what makes a comparison less than it seems: other passages, other training data.

    Args:
        sources: models by role.
        dataset: that is evaluated on.
        mark: its fingerprint.
        progress: hears it.
    """
    for role, source in sources.items():
        contract = Contract.load(source.path)
        for difference in disagreements(dataset, contract) if contract else ():
            progress.warn(
                f"{role} is judged on other passages than it will see in use: {difference}",
                way_out="make the dataset with the model's own chunking and template",
            )
        trained_on = source.manifest.inputs.get("dataset") if source.manifest else None
        if trained_on is not None and trained_on.fingerprint != mark:
            progress.warn(
                f"{role} was trained on another dataset: test queries may be among its training queries",
                trained_on=trained_on.address,
            )


def trained_on(sources: Mapping[str, ModelSource], mark: str, store: Store) -> dict[str, Dataset | None]:
    """The datasets of the tuned models that were trained on another one than is evaluated on.

    Args:
        sources: models by role.
        mark: fingerprint of the dataset that is evaluated on.
        store: where they are looked for.

    Returns:
        Dataset by role; None where it is not there any more, or another one stands in its place.
    """
    from nearer.corpus.dataset import Dataset

    found: dict[str, Dataset | None] = {}
    for role in ("tuned", "reranker"):
        manifest = sources[role].manifest if role in sources else None
        entry = manifest.inputs.get("dataset") if manifest else None
        if entry is None or entry.fingerprint == mark:
            continue
        found[role] = None
        try:
            there = store.manifest(entry.address)
            if there is not None and there.fingerprint == entry.fingerprint:
                found[role] = Dataset.load(store.open(entry.address, kind="dataset").path)
        except NearerError:
            continue
    return found


def audit(dataset: Path) -> dict[str, object]:
    """What `generate` says about the dataset; empty if it says nothing."""
    path = dataset / "audit.json"
    found: dict[str, object] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def ideal_contexts(dataset: Path) -> dict[str, int] | None:
    """How many of the ideal contexts that the user's files name were found in a document; None if they name none."""
    forms = audit(dataset).get("ideal_contexts")
    if not isinstance(forms, dict) or not forms:
        return None
    unlinked = sum(links["unlinked"] for links in forms.values())
    return {"linked": sum(sum(links.values()) for links in forms.values()) - unlinked, "unlinked": unlinked}
