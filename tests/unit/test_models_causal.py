"""Decoders as embedders: which token sees which, and which one speaks for the text."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nearer.models.encode import Embedder
from nearer.models.load import load_embedder
from nearer.models.source import ModelSource
from nearer.testing import tiny_embedder

END = 0


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    path = tiny_embedder(tmp_path_factory.mktemp("neox"), architecture="gpt_neox")
    return load_embedder(ModelSource(name="neox", path=path, fingerprint="f", origin="directory", revision="f"))


def tokens(embedder: Embedder, text: str) -> torch.Tensor:
    """Token vectors (tokens, dimension) of a text alone."""
    features = dict(embedder.model.tokenizer([text], return_tensors="pt"))
    with torch.no_grad():
        return embedder.model[0](features)["token_embeddings"][0]


def test_a_token_sees_what_stands_before_it_only(embedder: Embedder) -> None:
    """A change in the middle leaves all tokens before it as they were and changes all from there on."""
    one, other = "가습기의 필터교체는 어떻게", "가습기의 물때세척은 어떻게"
    ids = [embedder.model.tokenizer(text)["input_ids"] for text in (one, other)]
    first = next(place for place, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    assert first > 0
    before, after = tokens(embedder, one), tokens(embedder, other)
    assert torch.allclose(before[:first], after[:first], atol=1e-6)
    assert not torch.allclose(before[first], after[first], atol=1e-3)


def test_the_end_token_speaks_for_the_text(embedder: Embedder) -> None:
    """The vector is that of the appended end token: the one place that has seen everything."""
    text = "가습기의 필터교체는 어떻게 합니까?"
    last = tokens(embedder, text)[-1].numpy()
    assert embedder.model.tokenizer(text)["input_ids"][-1] == END
    assert np.abs(embedder.encode_passages([text])[0] - last / np.linalg.norm(last)).max() < 1e-5
    changed = embedder.encode_passages([text.replace("가습기", "제습기")])[0]
    assert np.abs(changed - embedder.encode_passages([text])[0]).max() > 1e-3


def test_the_end_token_survives_truncation(embedder: Embedder) -> None:
    """A text that is too long loses its own tokens and keeps the end token."""
    encoded = embedder.model.tokenizer("가습기 " * 500, truncation=True, max_length=20)["input_ids"]
    assert len(encoded) == 20
    assert encoded[-1] == END
    assert encoded[-2] != END


def test_padding_is_on_the_right_and_unseen(embedder: Embedder) -> None:
    """Pad tokens stand behind the end token, are masked, and change nothing, although they are the same token."""
    features = embedder.model.tokenizer(
        ["가습기", "가습기의 필터교체는 어떻게 합니까?"], padding=True, return_tensors="pt"
    )
    mask = features["attention_mask"][0]
    assert mask.tolist() == sorted(mask.tolist(), reverse=True)
    assert mask.sum() < len(mask)
    together = embedder.encode_passages(["가습기", "가습기의 필터교체는 어떻게 합니까?"])
    assert np.abs(together[0] - embedder.encode_passages(["가습기"])[0]).max() < 1e-5


def test_mean_pooling_appends_nothing(tmp_path: Path) -> None:
    """With another pooling the tokenizer stays as it is."""
    path = tiny_embedder(tmp_path, architecture="gpt_neox")
    source = ModelSource(name="neox", path=path, fingerprint="f", origin="directory", revision="f")
    embedder = load_embedder(source, pooling="mean")
    assert embedder.model.tokenizer("가습기")["input_ids"][-1] != END
