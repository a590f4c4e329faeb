"""Texts to vectors and pairs to scores: order, batches, prefixes, cache."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer import process
from nearer.errors import Interrupted
from nearer.models.cache import encode_cached
from nearer.models.encode import Embedder, batches
from nearer.models.load import load_embedder, load_reranker
from nearer.models.score import Reranker
from nearer.models.source import ModelSource
from nearer.testing import korean_documents, tiny_cross_encoder, tiny_embedder

TEXTS = ["짧다", *(document["content"] for document in korean_documents(12, 3)), "", "가습기", "가습기"]


def source_of(path: Path) -> ModelSource:
    return ModelSource(name="base", path=path, fingerprint="f", origin="directory", revision="f")


@pytest.fixture(scope="module", params=["bert", "xlm-roberta", "gpt_neox"])
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    path = tiny_embedder(tmp_path_factory.mktemp("model"), architecture=request.param)
    return load_embedder(source_of(path), query_prefix="query: ", passage_prefix="passage: ")


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    return load_reranker(source_of(tiny_cross_encoder(tmp_path_factory.mktemp("model"))))


def test_company_does_not_change_a_vector(embedder: Embedder) -> None:
    """A text has the same vector alone and in any batch, in its own place."""
    alone = np.concatenate([embedder.encode_passages([text]) for text in TEXTS])
    for batch_tokens in (1, 300, 100_000):
        together = embedder.encode_passages(TEXTS, batch_tokens=batch_tokens)
        assert np.abs(together - alone).max() < 1e-5
    assert together.dtype == np.float32
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-5


def test_prefixes_are_written_by_the_contract(embedder: Embedder) -> None:
    """Each side has its own prefix, and it is the one that plain sentence-transformers would write."""
    assert not np.allclose(embedder.encode_queries(["가습기"]), embedder.encode_passages(["가습기"]))
    plain = embedder.model.encode(["query: 가습기"], prompt="")
    assert np.abs(embedder.encode_queries(["가습기"]) - plain).max() < 1e-5


def test_tokens_are_counted_without_specials_and_uncut(embedder: Embedder) -> None:
    """A count is of the text alone, also beyond the model's maximum."""
    assert embedder.count_tokens(["", "가습기 " * 2000])[0] == 0
    assert embedder.count_tokens(["가습기 " * 2000])[0] > 1999
    assert embedder.count_tokens([]) == []


def test_nothing_to_encode_is_no_error(embedder: Embedder) -> None:
    """No texts, no vectors, of the right shape."""
    assert embedder.encode_passages([]).shape == (0, 32)


def test_company_does_not_change_a_score(reranker: Reranker) -> None:
    """A pair has the same logit alone and in any batch."""
    pairs = [("가습기의 필터교체는 어떻게 합니까?", text) for text in TEXTS]
    alone = np.concatenate([reranker.score([pair]) for pair in pairs])
    for batch_tokens in (1, 300, 100_000):
        assert np.abs(reranker.score(pairs, batch_tokens=batch_tokens) - alone).max() < 1e-5


def test_scores_are_logits_with_token_types(reranker: Reranker) -> None:
    """What comes out is the head's raw logit of the tokenised pair, its second text marked as such."""
    import torch

    pair = ("가습기", "제습기의 물때세척")
    features = reranker.model.tokenizer([pair[0]], [pair[1]], return_tensors="pt")
    assert features["token_type_ids"].max() == 1
    with torch.no_grad():
        expected = reranker.model.transformers_model(**features).logits.item()
    assert reranker.score([pair])[0] == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 60), max_size=80), batch_tokens=st.integers(1, 400))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], batch_tokens: int) -> None:
    """Each row is in one batch; a batch of several rows keeps to the padded token budget; the longest come first."""
    found = list(batches(lengths, batch_tokens=batch_tokens))
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    assert all(len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= batch_tokens for rows in found)
    order = [lengths[row] for rows in found for row in rows]
    assert order == sorted(order, reverse=True)


def test_a_cached_vector_is_not_computed_again(embedder: Embedder, tmp_path: Path, monkeypatch) -> None:
    """The second time, everything comes from disk; a damaged or cut file is made again; sides do not mix."""
    monkeypatch.setattr("nearer.models.cache.SHARD_TEXTS", 5)
    first = encode_cached(embedder, TEXTS, side="passage", directory=tmp_path)
    assert np.array_equal(first[:5], embedder.encode_passages(TEXTS[:5]))
    files = sorted(tmp_path.iterdir())
    assert len(files) == -(-len(TEXTS) // 5)
    files[0].write_bytes(files[0].read_bytes()[:-8])
    files[1].write_bytes(b"")
    kept = {file: file.stat().st_mtime_ns for file in files[2:]}
    assert np.array_equal(first, encode_cached(embedder, TEXTS, side="passage", directory=tmp_path))
    assert kept == {file: file.stat().st_mtime_ns for file in files[2:]}
    queries = encode_cached(embedder, TEXTS, side="query", directory=tmp_path)
    assert np.abs(queries - embedder.encode_queries(TEXTS)).max() < 1e-5


def test_a_stop_ends_encoding_between_batches(embedder: Embedder, monkeypatch) -> None:
    """After SIGTERM no further batch is computed."""
    stop = process.StopFlag()
    stop.set()
    monkeypatch.setattr(process, "STOP", stop)
    with pytest.raises(Interrupted):
        embedder.encode_passages(TEXTS)
