"""The ONNX graphs: fp32 by tracing, int8 by dynamic quantisation. The same model gives the same bytes."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nearer.errors import InputError
from nearer.models.encode import pad, tokenize
from nearer.models.onnx import LOGITS
from nearer.models.score import Reranker

if TYPE_CHECKING:
    from onnx import ModelProto

EXTERNAL_ABOVE_BYTES: Final = 2_000_000_000
"""Protobuf ends at 2 GiB; weights beyond this stand in `model.onnx_data`, the name that optimum fetches."""
# Unequal lengths, so that the traced graph holds the mask's arithmetic.
_EXAMPLES: Final = (("무엇을 묻나요?", "이것은 첫째 글이고 조금 더 길다."), ("둘째 질문", "짧은 글"))


def write_fp32(reranker: Reranker, path: Path, *, opset: int, external_above_bytes: int = EXTERNAL_ABOVE_BYTES) -> None:
    """Trace the model into a graph with free batch and sequence axes and one output, raw logits (batch, 1).

    The exporter is PyTorch's tracing one: its graphs run faster than the newer exporter's (1.8 against 1.5 times
    PyTorch's speed on a cross-encoder of 12 layers, 128 tokens).

    Args:
        reranker: on the CPU, in fp32.
        path: of the graph.
        opset: ONNX operator set.
        external_above_bytes: larger weights stand in a file of their own beside the graph.

    Raises:
        InputError: the model's architecture cannot be traced into ONNX operators.
    """
    import onnx
    import torch

    model = reranker.model.transformers_model.eval()
    tokenizer = reranker.model.tokenizer
    queries, passages = zip(*_EXAMPLES, strict=True)
    encoded = tokenize(tokenizer, queries, passages, max_tokens=reranker.contract.max_pair_tokens)
    features = pad(tokenizer, encoded, range(len(_EXAMPLES)))
    names = tuple(features)

    class Logits(torch.nn.Module):
        """The model with positional inputs and its logits as only output, which is what tracing needs."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            """From (batch, sequence) inputs to (batch, 1) logits."""
            logits: torch.Tensor = self.model(**dict(zip(names, tensors, strict=True))).logits
            return logits

    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in names}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as traced, _quiet(), torch.inference_mode():
        target = Path(traced) / "model.onnx"
        try:
            torch.onnx.export(
                Logits(),
                tuple(features[name] for name in names),
                str(target),
                input_names=list(names),
                output_names=[LOGITS],
                dynamic_axes={**axes, LOGITS: {0: "batch_size"}},
                opset_version=opset,
                dynamo=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(
                f"{type(model).__name__} cannot be exported to ONNX: {str(error).splitlines()[0]}",
                rule="an architecture whose operations ONNX knows",
                way_out="another `export_onnx.opset` (newer ones know more), or a reranker of another architecture",
            ) from error
        graph = onnx.load(str(target))
    _save(graph, path, external_above_bytes=external_above_bytes)
    onnx.checker.check_model(str(path))


def write_int8(fp32: Path, path: Path, *, external_above_bytes: int = EXTERNAL_ABOVE_BYTES) -> None:
    """Quantise a graph's weights to int8, a scale a channel; activations are scaled when it runs.

    The weights keep 7 bits of range: processors without VNNI add pairs of 8-bit products in 16 bits and overflow, and
    nobody knows at export what will serve. Per channel is more faithful than per tensor (rank agreement .975 against
    .93 on a cross-encoder of 12 layers).

    Args:
        fp32: the graph that is quantised.
        path: of the graph that is written.
        external_above_bytes: larger weights stand in a file of their own beside the graph.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as place, _quiet():
        target = Path(place) / "model.onnx"
        quantize_dynamic(
            model_input=str(fp32),
            model_output=str(target),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            use_external_data_format=_weight_bytes(fp32) > external_above_bytes,
        )
        graph = onnx.load(str(target))
    _save(graph, path, external_above_bytes=external_above_bytes)


def _save(graph: ModelProto, path: Path, *, external_above_bytes: int) -> None:
    """Write the graph without what tells where and when it was traced."""
    import onnx

    graph.ClearField("doc_string")
    graph.graph.ClearField("doc_string")
    del graph.metadata_props[:]
    for node in graph.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    external: dict[str, Any] = {}
    if graph.ByteSize() > external_above_bytes:
        external = {"save_as_external_data": True, "all_tensors_to_one_file": True, "location": f"{path.name}_data"}
        path.with_name(external["location"]).unlink(missing_ok=True)  # onnx appends to what is there
    onnx.save_model(graph, str(path), **external)


def _weight_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.iterdir() if file.name.startswith(path.name))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporters' advice on tracing and pre-processing; that the result is right is proven afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
