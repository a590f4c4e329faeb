"""What `nearer export-onnx` is told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from nearer.settings.section import Address, Section, Share, execution


class ExportSettings(Section):
    """`nearer export-onnx`: the reranker as ONNX, fp32 and int8."""

    reranker: str | None = execution(None, description="Address of the model; default: the output of `train.reranker`.")
    dataset: str | None = execution(
        None, description="Dataset whose pairs prove parity; default: the output of `generate` if it is there."
    )
    output_dir: Address = execution("models/onnx_reranker", description="Address of the directory that is made.")
    opset: Annotated[int, Field(ge=14, le=20)] = 17
    """ONNX operator set; 20 is the newest that the tracing exporter writes."""
    int8: bool = True
    """Make the dynamically quantised variant as well."""
    parity_pairs: PositiveInt = 200
    """Real query-passage pairs that PyTorch and ONNX both score."""
    max_logit_difference: PositiveFloat = 1e-3
    """fp32 fails above this absolute difference: exit 3."""
    min_rank_agreement: Share = 0.9
    """int8 is withheld below this Spearman correlation with PyTorch, mean over queries."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""
