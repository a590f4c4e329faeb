"""`nearer export-onnx`: the reranker as ONNX, fp32 and int8, each proven against PyTorch on real pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nearer.errors import ArtifactMissing
from nearer.models.source import find_model, model_fingerprint, model_state
from nearer.progress import Progress
from nearer.settings import Settings, resolve
from nearer.store import Artifact, Built, InputEntry, Manifest, Outcome, Plan, PlannedInput, Store, WorkArea, produce
from nearer.store import fingerprint as fingerprint_of

FORMAT: Final = 1


def run(settings: Settings, store: Store, progress: Progress) -> Manifest:
    """Export the reranker.

    Raises:
        InputError: the reranker is none, or cannot be exported; a dataset that the section names is missing.
        GateRefused: the fp32 export differs too much from PyTorch; nothing is published.
    """
    section = settings.export_onnx
    source = find_model(_trained(settings, store), store=store)
    dataset = _dataset(settings, store)
    where = source.name if source.origin == "hub" else store.resolve(source.name)
    inputs = {"reranker": InputEntry(address=where, fingerprint=source.fingerprint)}
    if dataset is not None:
        inputs["dataset"] = InputEntry(address=dataset.address, fingerprint=dataset.manifest.fingerprint)

    def build(directory: Path, _: WorkArea) -> Built:
        from nearer.corpus.dataset import Dataset
        from nearer.export.build import build_fp32, build_int8
        from nearer.export.pairs import dataset_candidates, vocabulary_candidates
        from nearer.models.load import load_reranker

        reranker = load_reranker(source, device="cpu", trust_remote_code=section.trust_remote_code)
        if reranker.contract.rerank_weight == 0:
            progress.warn(
                "the weight of this reranker is 0: on the validation queries its training found no order that it had a "
                "part in better than the retriever's own. Whoever serves it has to use that weight"
            )
        if dataset is not None:
            candidates = dataset_candidates(
                Dataset.load(dataset.path),
                template=reranker.contract.passage_template,
                pairs=section.parity_pairs,
                seed=settings.seed,
                progress=progress,
            )
        else:
            progress.warn(
                "no dataset: parity is measured on random words, which says little about ranks; "
                "name one in `export_onnx.dataset`"
            )
            vocabulary = reranker.model.tokenizer.get_vocab()
            candidates = vocabulary_candidates(vocabulary, pairs=section.parity_pairs, seed=settings.seed)
        metrics, reference = build_fp32(
            reranker,
            candidates,
            directory,
            opset=section.opset,
            max_logit_difference=section.max_logit_difference,
            progress=progress,
        )
        del reranker  # int8 is made without it, and in its place in memory
        if section.int8:
            metrics["int8"] = build_int8(
                reference, directory, min_rank_agreement=section.min_rank_agreement, progress=progress
            )
        if "token_type_ids" in metrics["inputs"]:
            progress.say("the model reads token_type_ids: a server that leaves them out scores pairs differently")
        withheld = metrics.get("int8", {}).get("withheld", False)
        return Built(metrics=metrics, outcome=Outcome(reason="done; int8 is withheld" if withheld else "done"))

    return produce(
        store,
        progress,
        kind="onnx",
        name="export-onnx",
        address=section.output_dir,
        fingerprint=_fingerprint(settings, inputs),
        inputs=inputs,
        settings=section.model_dump(mode="json"),
        build=build,
    )


def plan(settings: Settings, store: Store) -> Plan:
    """What `run` would do; touches nothing and loads nothing heavy."""
    section = settings.export_onnx
    reranker, dataset = resolve.export_reranker(settings), resolve.dataset_of(settings, section.dataset)
    state = model_state(reranker, store=store)
    if state != "there" and reranker == resolve.reranker(settings).output_dir:
        reranker_state = "made by `train reranker` first" if settings.train.reranker else "missing"
    else:
        reranker_state = state
    there = store.manifest(dataset)
    fingerprint = model_fingerprint(reranker, store=store)
    notes = []
    if there is None and section.dataset is None:
        notes.append("if there is no dataset when it runs, parity is measured on random words")
    known = None
    if fingerprint is not None and (there is not None or section.dataset is None):
        inputs = {"reranker": InputEntry(address=reranker, fingerprint=fingerprint)}
        if there is not None:
            inputs["dataset"] = InputEntry(address=dataset, fingerprint=there.fingerprint)
        known = _fingerprint(settings, inputs)
    return Plan(
        job="export-onnx",
        inputs=(
            PlannedInput(name="reranker", address=reranker, state=reranker_state),
            PlannedInput(
                name="dataset",
                address=dataset,
                state="there" if there else "made by `generate` first" if section.dataset is None else "missing",
            ),
        ),
        output=section.output_dir,
        state=store.foresee(section.output_dir, known),
        notes=tuple(notes),
    )


def _trained(settings: Settings, store: Store) -> str:
    """The reranker's name; one that `train` makes is not looked for on the hub."""
    name = resolve.export_reranker(settings)
    if name == resolve.reranker(settings).output_dir and model_state(name, store=store) != "there":
        raise ArtifactMissing(
            f"the reranker {name!r} is not there",
            where=store.resolve(name),
            rule="`export_onnx.reranker`, else the output of `train.reranker`",
            way_out="train it first: `nearer train reranker`; or name another in `export_onnx.reranker`",
        )
    return name


def _dataset(settings: Settings, store: Store) -> Artifact | None:
    """The dataset of the parity pairs; only one that the section names must be there."""
    address = resolve.dataset_of(settings, settings.export_onnx.dataset)
    if settings.export_onnx.dataset is None and store.manifest(address) is None:
        return None
    return store.open(address, kind="dataset")


def _fingerprint(settings: Settings, inputs: dict[str, InputEntry]) -> str:
    return fingerprint_of(
        job="export-onnx",
        format_version=FORMAT,
        fields=settings.export_onnx.result_fields(),
        inputs=inputs,
        seed=settings.seed,
    )
