"""`nearer doctor data`: settings and store in, a page out, and an error when the dataset leaks."""

from __future__ import annotations

from pathlib import Path

from nearer.corpus.dataset import Dataset
from nearer.doctor.data import Diagnosis, Reading, diagnose
from nearer.doctor.page import page
from nearer.errors import GateRefused, InputError, OutOfReach
from nearer.models.contract import render_passage
from nearer.models.load import load_embedder
from nearer.models.source import find_model
from nearer.progress import Progress
from nearer.records import Passage
from nearer.settings.model import Settings
from nearer.settings.resolve import dataset_of, embedding, generate_embedder
from nearer.store import Store


def examine(settings: Settings, store: Store, progress: Progress, *, target: Path) -> Diagnosis:
    """Look at the dataset that training would read, and write the page.

    Raises:
        ArtifactMissing: there is no dataset yet.
        InputError: the page cannot stand there.
    """
    address = dataset_of(settings, embedding(settings).dataset)
    artifact = store.open(address, kind="dataset")
    if target.is_dir():
        raise InputError(f"{target} is a directory", where="--page", rule="the name of a file")
    found = diagnose(
        Dataset.load(artifact.path),
        name=address,
        near_duplicate=settings.generate.near_duplicate,
        max_share=settings.generate.negatives.max_share_of_positive,
        seed=settings.seed,
        reading=_reading(settings, store, progress),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(found), encoding="utf-8")
    return found


def require_no_leaks(found: Diagnosis) -> None:
    """Raise GateRefused when something of the test part can be learnt from the train part."""
    if found.leaks:
        kinds = ", ".join(f"{each.name} {each.count}" for each in found.findings if each.grave and each.count)
        raise GateRefused(
            f"the dataset leaks from test to train in {found.leaks} places: {kinds}",
            where=found.dataset,
            rule="no test query, and no document or near-duplicate that answers one, in train",
            way_out="make it again with `nearer generate --overwrite`; a figure measured on it proves nothing",
        )


def _reading(settings: Settings, store: Store, progress: Progress) -> Reading | None:
    """The tokenizer of the model that will be trained, and what training reads; None where it cannot be had."""
    own = embedding(settings)
    name = own.base_model if settings.train.embedding else generate_embedder(settings)
    try:
        embedder = load_embedder(
            find_model(name, store=store),
            trust_remote_code=own.trust_remote_code,
            passage_template=settings.generate.chunk.template,
        )
    except (InputError, OutOfReach) as error:
        progress.warn("lengths are in characters: the model's tokenizer cannot be had", model=name, why=error.what)
        return None
    contract = embedder.contract

    def render(passage: Passage) -> str:
        shown = render_passage(contract.passage_template, title=passage.title, path=passage.path, text=passage.text)
        return contract.passage_prefix + shown

    limits = [
        min(limit, of_model) if of_model else limit
        for limit, of_model in (
            (own.max_query_tokens, contract.max_query_tokens),
            (own.max_passage_tokens, contract.max_passage_tokens),
        )
    ]
    return Reading(
        count_tokens=embedder.count_tokens, max_query_tokens=limits[0], max_passage_tokens=limits[1], render=render
    )
