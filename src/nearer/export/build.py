"""The ONNX artifact: two directories that serving software loads as they are, each proven against PyTorch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from nearer import process
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


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Pairs and what PyTorch scored them: all that is needed of the reranker when int8 is made, when it may be gone."""

    pairs: Sequence[tuple[str, str]]
    sizes: Sequence[int]
    """How many pairs each query has."""
    scores: np.ndarray


def build_fp32(
    reranker: Reranker,
    candidates: Sequence[Candidates],
    directory: Path,
    *,
    opset: int,
    max_logit_difference: float,
    progress: Progress,
) -> tuple[dict[str, Any], Reference]:
    """Write the fp32 export into the directory and compare it with PyTorch.

    Args:
        reranker: on the CPU, in fp32.
        candidates: what both sides score.
        directory: empty.
        opset: ONNX operator set.
        max_logit_difference: fp32 fails above it.
        progress: hears the results.

    Returns:
        The metrics, and what int8 is compared with.

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
    process.release_memory()  # of scoring: tracing needs several times the weights
    with timed(progress, "exported fp32"):
        write_fp32(reranker, directory / GRAPH, opset=opset)
        save_reranker_config(reranker, directory)
        reranker.contract.save(directory)
    exported = load_onnx_reranker(directory)
    scores = exported.score(pairs)
    difference = max_difference(reference, scores)
    metrics: dict[str, Any] = {
        "pairs": len(pairs),
        "queries": len(candidates),
        "inputs": list(exported.input_names),
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
    return metrics, Reference(pairs=pairs, sizes=sizes, scores=reference)


def build_int8(
    reference: Reference, directory: Path, *, min_rank_agreement: float, progress: Progress
) -> dict[str, Any]:
    """Quantise the fp32 export that stands in the directory into its `int8`, and compare it with PyTorch.

    Args:
        reference: of `build_fp32`.
        directory: of `build_fp32`.
        min_rank_agreement: int8 is withheld below it.
        progress: hears the results.

    Returns:
        The metrics; `withheld` says whether int8 was made and left out.
    """
    pairs, target = reference.pairs, directory / INT8
    process.release_memory()  # of PyTorch's model and onnxruntime's: quantising needs as much again
    with timed(progress, "exported int8"):
        shutil.copytree(directory, target, ignore=shutil.ignore_patterns(Path(GRAPH).parts[0]))
        write_int8(directory / GRAPH, target / GRAPH)
    quantised = load_onnx_reranker(target)
    scores = quantised.score(pairs)
    agreement = rank_agreement(reference.scores, scores, reference.sizes)
    measured = {
        "bytes": _bytes(target / GRAPH),
        "rank_agreement": agreement,
        "max_logit_difference": max_difference(reference.scores, scores),
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


def _bytes(graph: Path) -> int:
    return sum(file.stat().st_size for file in graph.parent.iterdir())
