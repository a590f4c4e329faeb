"""Saved models: plain libraries give the same results, and older releases find the names that they know."""

import json
from pathlib import Path

import numpy as np
import pytest

from nearer.models.load import load_embedder, load_reranker
from nearer.models.save import save_embedder, save_reranker
from nearer.models.source import ModelSource
from nearer.testing import korean_documents, tiny_cross_encoder, tiny_embedder

TEXTS = ["짧다", *(document["content"] for document in korean_documents(8, 3))]


def source_of(path: Path) -> ModelSource:
    return ModelSource(name="base", path=path, fingerprint="f", origin="directory", revision="f")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "gpt_neox"])
def test_an_embedder_is_the_same_in_plain_sentence_transformers(tmp_path: Path, architecture: str) -> None:
    """`SentenceTransformer(directory)` gives our vectors, prefixes included; so do we after loading it again."""
    from sentence_transformers import SentenceTransformer

    base = tiny_embedder(tmp_path / "base", architecture=architecture)
    embedder = load_embedder(source_of(base), query_prefix="query: ", passage_prefix="passage: ")
    passages, queries = embedder.encode_passages(TEXTS), embedder.encode_queries(TEXTS)
    written = save_embedder(embedder, tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu", local_files_only=True)
    assert np.abs(plain.encode_document(TEXTS) - passages).max() < 1e-5
    assert np.abs(plain.encode_query(TEXTS) - queries).max() < 1e-5
    again = load_embedder(source_of(tmp_path / "saved"))
    assert np.abs(again.encode_passages(TEXTS) - passages).max() < 1e-6
    assert again.contract == written
    assert written.tokenizer_sha256 == embedder.contract.tokenizer_sha256


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """A model that was used (texts cut and padded) is saved as one that was not, and as itself after loading."""
    base = tiny_embedder(tmp_path / "base")
    unused = load_embedder(source_of(base))
    save_embedder(unused, tmp_path / "a")
    unused.model.encode(TEXTS)
    unused.encode_passages(TEXTS)
    save_embedder(unused, tmp_path / "b")
    save_embedder(load_embedder(source_of(tmp_path / "a")), tmp_path / "c")
    names = sorted(str(file.relative_to(tmp_path / "a")) for file in (tmp_path / "a").rglob("*") if file.is_file())
    assert len(names) > 8
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes(), name


def test_older_readers_find_the_names_that_they_know(tmp_path: Path) -> None:
    """Pooling flags, maximum length, module paths, tokenizer class and special tokens stand under their old names."""
    base = tiny_embedder(tmp_path / "base", architecture="gpt_neox")
    save_embedder(load_embedder(source_of(base)), tmp_path / "saved")
    pooling = read(tmp_path / "saved" / "1_Pooling" / "config.json")
    flags = {name: value for name, value in pooling.items() if name.startswith("pooling_mode_")}
    assert pooling["word_embedding_dimension"] == 32
    assert [name for name, value in flags.items() if value] == ["pooling_mode_lasttoken"]
    # A release before 5.4 passes everything that stands here to a constructor that takes these two only.
    assert read(tmp_path / "saved" / "sentence_bert_config.json") == {"max_seq_length": 256, "do_lower_case": False}
    types = [entry["type"] for entry in read(tmp_path / "saved" / "modules.json")]
    assert types == [f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")]
    tokenizer = read(tmp_path / "saved" / "tokenizer_config.json")
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["pad_token"] == "<|endoftext|>"
    assert not tokenizer.keys() & {"backend", "is_local", "extra_special_tokens"}
    assert read(tmp_path / "saved" / "special_tokens_map.json")["eos_token"] == "<|endoftext|>"
    config = read(tmp_path / "saved" / "config.json")
    assert (config["rotary_pct"], config["rotary_emb_base"]) == (0.25, 10000.0)
    assert config["torch_dtype"] == "float32"
    definition = read(tmp_path / "saved" / "tokenizer.json")
    assert (definition["truncation"], definition["padding"]) == (None, None)
    assert all(isinstance(merge, str) for merge in definition["model"]["merges"])  # pairs since tokenizers 0.20


@pytest.mark.parametrize("architecture", ["cross-encoder", "bert", "xlm-roberta"])
def test_a_reranker_is_the_same_in_plain_sentence_transformers(tmp_path: Path, architecture: str) -> None:
    """`CrossEncoder(directory).predict` gives our raw logits, cut at the contract's length; so do we after loading."""
    import torch
    from sentence_transformers import CrossEncoder

    if architecture == "cross-encoder":
        base = tiny_cross_encoder(tmp_path / "base")
    else:
        base = tiny_embedder(tmp_path / "base", architecture=architecture)
    torch.manual_seed(0)
    reranker = load_reranker(source_of(base), new_head=True, max_pair_tokens=48)
    pairs = [("가습기의 필터교체는 어떻게 합니까?", text) for text in TEXTS]
    scores = reranker.score(pairs)
    written = save_reranker(reranker, tmp_path / "saved")
    plain = CrossEncoder(str(tmp_path / "saved"), device="cpu", local_files_only=True)
    assert np.abs(plain.predict(pairs) - scores).max() < 1e-5
    again = load_reranker(source_of(tmp_path / "saved"))
    assert np.abs(again.score(pairs) - scores).max() < 1e-6
    assert again.contract == written
    assert again.contract.max_pair_tokens == 48
    assert scores.std() > 0
