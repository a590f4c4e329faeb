"""The whole evaluation, below the settings: retrieve, rerank, score, compare, decide, write."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nearer.corpus.dataset import Dataset
from nearer.evaluate.cases import cases
from nearer.evaluate.collapse import collapse
from nearer.evaluate.evidence import Change, changes, choose, populations
from nearer.evaluate.first import Caches, Model, first_stage
from nearer.evaluate.gates import Rules, gates
from nearer.evaluate.general import forgetting
from nearer.evaluate.heldout import held_out
from nearer.evaluate.leakage import Leakage
from nearer.evaluate.lineup import RERANKER, Lineup, line_up
from nearer.evaluate.page import Background, page
from nearer.evaluate.protocol import Protocol
from nearer.evaluate.report import assemble, write
from nearer.evaluate.second import Reranked, second_stage
from nearer.evaluate.slices import slices
from nearer.evaluate.speed import speed
from nearer.evaluate.systems import System, system
from nearer.evaluate.verdict import Check, Verdict, alternative, decide, primary
from nearer.progress import Progress
from nearer.ranking.compare import queries_needed


def build(
    directory: Path,
    *,
    dataset: Dataset,
    general: Dataset | None,
    leakage: Leakage | None,
    embedders: Mapping[str, Model],
    rerankers: Mapping[str, Model],
    incumbent: str | None,
    muted: Collection[str],
    plan: Protocol,
    rules: Rules,
    background: Background,
    ideal_contexts: Mapping[str, int] | None,
    caches: Caches,
    progress: Progress,
) -> tuple[Verdict, dict[str, Any]]:
    """Evaluate every retriever, alone and with every reranker, decide, and write the report.

    Args:
        directory: where the report's files go.
        dataset: its test part is asked, over its whole corpus.
        general: a dataset of another domain, to see what the tuned embedder has forgotten.
        leakage: what was found; None: not looked for.
        embedders: by role; loaded one after the other.
        rerankers: by role; likewise.
        incumbent: role of the embedder that is in use today.
        muted: roles of rerankers whose weight is 0.
        plan: how they are evaluated.
        rules: by which the verdict is reached.
        background: what the page says about where all this comes from.
        ideal_contexts: see `report.assemble`.
        caches: of vectors, pair scores and runs.
        progress: told what happens.

    Returns:
        The verdict, and the main numbers for the manifest.

    Raises:
        InputError: the dataset has nothing to test, a system or measure of the rules is none, or a model gives
            scores that are not numbers.
    """
    options: dict[str, Any] = {"bm25": plan.bm25, "incumbent": incumbent, "reranked": plan.reranked, "muted": muted}
    line = line_up([*embedders], [*rerankers], **options, baseline=rules.baseline, candidate=rules.candidate)
    held = held_out(dataset, max_queries=plan.max_queries, seed=plan.seed)
    progress.say("evaluating", queries=len(held.queries), passages=len(held.passages), systems=len(line.entries))
    # Evenly spread, and not drawn: another seed must not make every list anew.
    step = max(1, len(held.queries) // max(1, plan.speed_queries))
    positions = range(0, len(held.queries), step)[: plan.speed_queries]
    deep = plan.depth
    runs, seconds = first_stage(
        held,
        line,
        embedders=embedders,
        template=dataset.chunking.template,
        depth=deep,
        documents=plan.documents,
        alpha=plan.alpha,
        caches=caches,
        batch_tokens=plan.batch_tokens,
        timed_queries=positions,
        progress=progress,
    )
    second = second_stage(
        held,
        line,
        runs=runs,
        seconds=seconds,
        rerankers=rerankers,
        plan=plan,
        positions=positions,
        caches=caches,
        progress=progress,
    )
    systems = [system(held, second.passages[one.name], entry=one, depth=deep, ks=plan.ks) for one in line.entries]

    population, queries, why = choose(held, rules.queries)
    pair = (line.baseline, line.candidate) if line.baseline and line.candidate else None
    compared: dict[str, list[Change]] = {}
    for kind, ids in {**populations(held), population: queries}.items():
        compared[kind] = changes(
            systems,
            line.pairs(),
            queries=ids,
            groups=held.groups,
            measure=rules.measure,
            primary=pair,
            confidence=rules.confidence,
            seed=plan.seed,
        )
    by_name = {one.name: one for one in systems}
    checks: list[Check] = []
    found = []
    detectable = None
    shown: dict[str, Any] = {}
    if pair and queries:
        sides: dict[str, Any] = {
            "queries": queries,
            "before": by_name[pair[0]],
            "after": by_name[pair[1]],
            "measure": rules.measure,
        }
        first = compared[population][0].by_measure[rules.measure]
        found = slices(held, **sides, confidence=rules.confidence, seed=plan.seed)
        shown = cases(held, **sides)
        named: dict[str, Any] = {
            "before": pair[0],
            "after": pair[1],
            "measure": rules.measure,
            "population": population,
        }
        width: dict[str, Any] = {"confidence": rules.confidence, "power": rules.power}
        checks.append(primary(first, **named, **width, minimum=rules.minimum_effect))
        detectable = queries_needed(
            effect=rules.detect_effect,
            minimum=rules.minimum_effect,
            standard_error=first.standard_error,
            queries=first.queries,
            groups=first.effective_groups,
            **width,
        )
    else:
        checks.append(_nothing(line, population))
    checks += gates(
        rules,
        line_up=line,
        changes=compared[population],
        slices=found,
        leakage=leakage,
        collapsed=_collapsed(line, by_name, second, deep=deep, rerank_depth=plan.rerank_depth),
        forgetting=forgetting(
            general,
            embedders=embedders,
            measure=rules.measure,
            confidence=rules.confidence,
            plan=plan,
            caches=caches,
            progress=progress,
        )
        if general
        else None,
        real_queries=len(populations(held).get("real", ())),
    )
    verdict = decide(checks, context=[why, *_left_out(line)])
    if verdict.decision != "ship" and (instead := _alternative(line, compared[population], rules)):
        verdict = replace(verdict, reasons=(*verdict.reasons, instead))
    report = assemble(
        held,
        systems,
        line_up=line,
        population=population,
        queries=queries,
        changes=compared,
        slices=found,
        verdict=verdict,
        rules=asdict(rules),
        detectable=detectable,
        ks=plan.ks,
        depth=deep,
        rerank_depth=plan.rerank_depth,
        rerank_weights=second.weights,
        alpha=plan.alpha,
        ideal_contexts=ideal_contexts,
        models={
            role: {"name": one.name, "fingerprint": one.fingerprint, "precision": one.precision}
            for role, one in {**embedders, **rerankers}.items()
        },
    )
    write(directory, report, held, systems)
    sizes = {role: one.size for role, one in {**embedders, **rerankers}.items()}
    measured = None
    if plan.speed_queries:
        measured = speed(seconds, line, sizes=sizes, passages=len(held.passages))
        told = json.dumps(measured, ensure_ascii=False, indent=2) + "\n"
        (directory / "speed.json").write_text(told, encoding="utf-8")
    per_query = {one.name: {query: one.scores.per_query[query][rules.measure] for query in queries} for one in systems}
    html = page(report, speed=measured, cases=shown, per_query=per_query, background=background)
    (directory / "report.html").write_text(html, encoding="utf-8")
    main = [name for name in dict.fromkeys(("bm25", line.baseline, "base", "tuned", line.candidate)) if name in by_name]
    return verdict, {
        "verdict": verdict.decision,
        "queries": len(held.queries),
        "corpus_size": len(held.passages),
        **{
            f"{name} {rules.measure}": round(report["systems"][name]["metrics"].get(rules.measure, 0.0), 4)
            for name in main
        },
    }


def _nothing(line: Lineup, population: str) -> Check:
    """There is nothing to decide about."""
    if line.baseline and line.candidate:
        told = f"There is no {population} query to judge by."
    elif line.baseline:
        told = f"There is no tuned model to compare with {line.baseline}, or it is the one that is in use already."
    else:
        told = (
            "There is nothing in use today to compare with: name eval.incumbent or eval.base_embedder, or allow BM25."
        )
    return Check(name="primary", state="unclear", sentence=told)


def _left_out(line: Lineup) -> list[str]:
    """Why the candidate has no reranker where there is one."""
    candidate = line.entry(line.candidate)
    if candidate is None or candidate.reranker is not None or RERANKER not in line.muted:
        return []
    return [f"{candidate.name} is judged without the tuned reranker, whose weight is 0: it leaves every list as it is."]


def _alternative(line: Lineup, found: Sequence[Change], rules: Rules) -> str | None:
    """A sentence about the candidate without its reranker, if that is what should be shipped."""
    plain = line.without_reranker()
    change = next((one for one in found if (one.before, one.after) == (line.baseline, plain)), None)
    if change is None:
        return None
    return alternative(
        change.by_measure[rules.measure],
        before=change.before,
        after=change.after,
        measure=rules.measure,
        adjusted=change.adjusted,
        minimum=rules.minimum_effect,
        confidence=rules.confidence,
    )


def _collapsed(
    line: Lineup, by_name: Mapping[str, System], second: Reranked, *, deep: int, rerank_depth: int
) -> dict[str, str | None]:
    """What is wrong with the scores of the models that the candidate is made of."""
    candidate = line.entry(line.candidate)
    if candidate is None:
        return {}
    found: dict[str, str | None] = {}
    embedder = line.retriever(candidate.retriever).embedder
    if embedder is not None and embedder in by_name:
        found[embedder] = collapse(second.passages[embedder], top=deep)
    if candidate.reranker is not None and candidate.name in second.alone:
        found[candidate.reranker] = collapse(second.alone[candidate.name], top=rerank_depth)
    return found
