"""Rerankers as ONNX: the directory that `nearer export-onnx` makes, scored by onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nearer import process
from nearer.errors import ArtifactCorrupt, InputError
from nearer.models.contract import CONTRACT, Contract
from nearer.models.derive import tokenizer_sha256
from nearer.models.score import score_pairs
from nearer.progress import Progress

if TYPE_CHECKING:
    import torch
    from onnxruntime import InferenceSession

GRAPH: Final = "onnx/model.onnx"
"""Where sentence-transformers and optimum look for the graph within a model's directory."""
LOGITS: Final = "logits"


@dataclass(frozen=True, kw_only=True)
class OnnxReranker:
    """An onnxruntime session, its tokenizer, and the contract of the reranker that it was exported from."""

    contract: Contract
    session: InferenceSession
    tokenizer: Any

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the graph reads of what the tokenizer gives."""
        return tuple(node.name for node in self.session.get_inputs())

    def score(
        self, pairs: Sequence[tuple[str, str]], *, batch_tokens: int = 8192, progress: Progress | None = None
    ) -> np.ndarray:
        """Raw logits of (query, rendered passage) pairs, as `Reranker.score` gives them.

        Scores of an int8 graph depend on the other pairs of the batch, because activations are scaled over all of it.

        Returns:
            (n,) float32, in the order of the pairs.
        """
        names = self.input_names

        def logits(features: dict[str, torch.Tensor]) -> np.ndarray:
            feed = {name: features[name].numpy() for name in names}
            scores: np.ndarray = self.session.run([LOGITS], feed)[0].reshape(-1)
            return scores

        return score_pairs(
            pairs,
            logits=logits,
            tokenizer=self.tokenizer,
            contract=self.contract,
            batch_tokens=batch_tokens,
            progress=progress,
        )


def load_onnx_reranker(directory: Path, *, threads: int | None = None) -> OnnxReranker:
    """Load an exported reranker: the artifact's own directory (fp32) or its `int8` folder.

    Args:
        directory: holds `onnx/model.onnx`, contract.json and the tokenizer.
        threads: of one scoring call; None: OMP_NUM_THREADS, else the cores that this process may use (onnxruntime's own
            default ignores the container's quota, microsoft/onnxruntime#29510).

    Raises:
        InputError: the directory holds no exported reranker.
        ArtifactCorrupt: contract and tokenizer do not belong together, or the graph cannot be read.
    """
    import onnxruntime
    from transformers import AutoTokenizer

    contract = Contract.load(directory)
    if contract is None or contract.kind != "reranker" or not (directory / GRAPH).is_file():
        raise InputError(
            "not an exported reranker",
            where=str(directory),
            rule=f"a directory with {GRAPH} and the {CONTRACT} of a reranker",
            way_out="make one: `nearer export-onnx`",
        )
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    if tokenizer_sha256(tokenizer) != contract.tokenizer_sha256:
        raise ArtifactCorrupt(
            f"the tokenizer is not the one that {CONTRACT} names",
            where=str(directory),
            rule="an export and its contract belong together",
            way_out="export again: `nearer export-onnx --overwrite`",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS") or process.cpu_count())
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; its warnings are about the graph's making, not about this use
    try:
        session = onnxruntime.InferenceSession(
            str(directory / GRAPH), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions have no public root
        raise ArtifactCorrupt(
            f"onnxruntime cannot read the graph: {str(error).splitlines()[0]}", where=str(directory / GRAPH)
        ) from error
    return OnnxReranker(contract=contract, session=session, tokenizer=tokenizer)
