"""Encoding and scoring in fewer bits: the same answers but for rounding, and never mixed up with others."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nearer.errors import InputError
from nearer.models.cache import encode_cached
from nearer.models.load import load_embedder, load_reranker
from nearer.models.precision import choose
from nearer.models.source import ModelSource
from nearer.testing import korean_documents, tiny_cross_encoder, tiny_embedder

TEXTS = ["짧다", *(document["content"] for document in korean_documents(30, 3))]
TEXTS.append(" ".join(TEXTS)[:3000])


def source_of(path: Path) -> ModelSource:
    return ModelSource(name="base", path=path, fingerprint="f", origin="directory", revision="f")


@pytest.mark.parametrize(
    ("architecture", "sentence_transformer"),
    [("bert", False), ("bert", True), ("xlm-roberta", False), ("gpt_neox", False)],
)
def test_vectors_in_bf16_differ_by_rounding_only(architecture: str, sentence_transformer: bool, tmp_path: Path) -> None:
    """In long texts as well, where a rounded angle of a position would be another position."""
    path = tiny_embedder(tmp_path, architecture=architecture, sentence_transformer=sentence_transformer)
    full, half = (load_embedder(source_of(path), precision=name) for name in ("fp32", "bf16"))
    wanted, found = full.encode_passages(TEXTS), half.encode_passages(TEXTS)
    assert found.dtype == np.float32
    assert (wanted * found).sum(axis=1).min() > 0.999
    assert np.abs(wanted - found).max() > 1e-6
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5
    held = sum(weight.numel() * weight.element_size() for weight in half.model.parameters())
    assert held < 0.6 * sum(weight.numel() * weight.element_size() for weight in full.model.parameters())
    assert all(buffer.dtype != torch.bfloat16 for buffer in half.model.buffers())


def test_scores_in_bf16_are_not_rounded_to_it(tmp_path: Path) -> None:
    """As many different scores as in fp32: with the eight bits of bf16 the best of a list would be ties."""
    source = source_of(tiny_cross_encoder(tmp_path))
    pairs = [(text[:20], passage) for text in TEXTS[1:6] for passage in TEXTS[1:31]]
    wanted, found = (load_reranker(source, precision=name).score(pairs) for name in ("fp32", "bf16"))
    assert len(set(found.tolist())) == len(set(wanted.tolist())) == len(pairs)
    assert 1e-6 < np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()


def test_the_cache_does_not_mix_them(tmp_path: Path) -> None:
    """Vectors of one precision are not taken for those of another."""
    path = tiny_embedder(tmp_path / "model")
    for precision in ("fp32", "bf16", "fp32"):
        embedder = load_embedder(source_of(path), precision=precision)
        kept = encode_cached(embedder, TEXTS, side="passage", directory=tmp_path / "cache")
        assert np.array_equal(kept, embedder.encode_passages(TEXTS))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cpu_computes_in_fp32_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` asks a GPU what it has; fp16 is for GPUs."""
    assert choose("auto", device="cpu") == "fp32"
    for has_bf16, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation, has=has_bf16: has)
        assert choose("auto", device="cuda:0") == precision
        assert choose("fp16", device="cuda:0") == "fp16"
    with pytest.raises(InputError, match="fp16 on a CPU"):
        choose("fp16", device="cpu")
