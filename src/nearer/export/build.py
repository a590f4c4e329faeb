"""The ONNX artifact: two directories that serving software loads as they are, each proven against PyTorch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from nearer.errors import GateRefused
from nearer.export.graph import write_fp32, write_int8
from nearer.export.pairs import Candidates, flat
from nearer.export.parity import max_difference, rank_agreement
from nearer.models.onnx import GRAPH, load_onnx_reranker
from nearer.models.save import save_reranker_config
from nearer.models.score import Reranker
from nearer.progress import Progress, timed

INT8: Final = "int8"
"""Folder of the quantised variant, a model directory of its own."""
_ALONE: Final = 20  # pairs that int8 scores once more, each by itself


def build(
    reranker: Reranker,
    candidates: Sequence[Candidates],
    directory: Path,
    *,
    opset: int,
    int8: bool,
    max_logit_difference: float,
    min_rank_agreement: float,
    progress: Progress,
) -> dict[str, Any]:
    """Write the fp32 export into the directory and the int8 one into its `int8`, and compare both with PyTorch.

    Args:
        reranker: on the CPU, in fp32.
        candidates: what both sides score.
        directory: empty.
        opset: ONNX operator set.
        int8: whether the quantised variant is made.
        max_logit_difference: fp32 fails above it.
        min_rank_agreement: int8 is withheld below it.
        progress: hears the results.

    Returns:
        The metrics; `int8.withheld` says whether int8 was made and left out.

    Raises:
        GateRefused: fp32 differs too much.
        InputError: the model cannot be exported.
    """
    # Beside the candidates, one pair that reaches the longest length: the last positions must be exported too.
    longest = Candidates(query=candidates[0].query, passages=("\n".join(candidates[0].passages),))
    pairs = flat([*candidates, longest])
    sizes = [*(len(one.passages) for one in candidates), 1]
    with timed(progress, f"scored {len(pairs)} pairs with PyTorch"):
        reference = reranker.score(pairs)
    with timed(progress, "exported fp32"):
        write_fp32(reranker, directory / GRAPH, opset=opset)
        _write_surroundings(reranker, directory)
    exported = load_onnx_reranker(directory)
    scores, inputs = exported.score(pairs), list(exported.input_names)
    del exported  # a session holds a copy of the weights, and quantising needs several
    difference = max_difference(reference, scores)
    metrics: dict[str, Any] = {
        "pairs": len(pairs),
        "queries": len(candidates),
        "inputs": inputs,
        "fp32": {
            "bytes": _bytes(directory / GRAPH),
            "max_logit_difference": difference,
            "rank_agreement": rank_agreement(reference, scores, sizes),
        },
    }
    progress.say("fp32 against PyTorch", **metrics["fp32"])
    if difference > max_logit_difference:
        raise GateRefused(
            f"the fp32 export differs from PyTorch by up to {difference:.3g} in the logit, over {len(pairs)} pairs",
            where="export_onnx.max_logit_difference",
            rule=f"at most {max_logit_difference:g}",
            way_out="try another `opset`; if the difference is small, raise the limit. Nothing was published",
        )
    if int8:
        metrics["int8"] = _build_int8(
            reranker, pairs, sizes, reference, directory, min_rank_agreement=min_rank_agreement, progress=progress
        )
    return metrics


def _build_int8(
    reranker: Reranker,
    pairs: Sequence[tuple[str, str]],
    sizes: Sequence[int],
    reference: Any,
    directory: Path,
    *,
    min_rank_agreement: float,
    progress: Progress,
) -> dict[str, Any]:
    target = directory / INT8
    with timed(progress, "exported int8"):
        write_int8(directory / GRAPH, target / GRAPH)
        _write_surroundings(reranker, target)
    quantised = load_onnx_reranker(target)
    scores = quantised.score(pairs)
    agreement = rank_agreement(reference, scores, sizes)
    measured = {
        "bytes": _bytes(target / GRAPH),
        "rank_agreement": agreement,
        "max_logit_difference": max_difference(reference, scores),
        # The same pairs, each in a batch of its own: what another company does to a score.
        "max_difference_by_company": max_difference(
            scores[:_ALONE], quantised.score(list(pairs[:_ALONE]), batch_tokens=1)
        ),
        "withheld": agreement < min_rank_agreement,
    }
    progress.say("int8 against PyTorch", **measured)
    if measured["withheld"]:
        progress.warn(
            f"int8 is withheld: it ranks too differently from PyTorch (Spearman {agreement:.3f}, "
            f"at least {min_rank_agreement:g} asked for by export_onnx.min_rank_agreement); fp32 is exported"
        )
        shutil.rmtree(target)
    return measured


def _write_surroundings(reranker: Reranker, directory: Path) -> None:
    save_reranker_config(reranker, directory)
    reranker.contract.save(directory)


def _bytes(graph: Path) -> int:
    return sum(file.stat().st_size for file in graph.parent.iterdir())
