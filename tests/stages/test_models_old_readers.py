"""Saved embedders in the hands of sentence-transformers 5 and transformers 4, which many users run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_families import DECODERS, ENCODERS

from nearer.models.load import load_embedder
from nearer.models.save import save_embedder
from nearer.models.source import ModelSource
from nearer.testing import korean_documents

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]
TEXTS = ["짧다", "가습기 " * 300, *(document["content"] for document in korean_documents(4, 3))]
TOO_NEW = {"hyperclovax"}
"""Architectures that transformers 4 does not know."""
READER = """
import json, sys
import transformers
from sentence_transformers import SentenceTransformer

request = json.load(sys.stdin)
found = {name: SentenceTransformer(path, device="cpu").encode(request["texts"]) for name, path in request["models"].items()}
json.dump({"version": transformers.__version__, **{name: rows.tolist() for name, rows in found.items()}}, sys.stdout)
"""


def test_their_vectors_are_ours(python: str, tmp_path: Path) -> None:
    """Each family, with the rotary positions and end tokens that it really has, gives the vectors that we give."""
    expected, models = {}, {}
    for family in (*DECODERS, *ENCODERS):
        if family.name in TOO_NEW:
            continue
        path = family.save(tmp_path / family.name)
        source = ModelSource(name="base", path=path, fingerprint="f", origin="directory", revision="f")
        embedder = load_embedder(source)
        expected[family.name] = embedder.encode_passages(TEXTS)
        models[family.name] = str(tmp_path / f"{family.name}-saved")
        save_embedder(embedder, Path(models[family.name]))
    request = json.dumps({"models": models, "texts": TEXTS})
    answer = subprocess.run([python, "-c", READER], input=request, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    found = json.loads(answer.stdout)
    version = found.pop("version")
    assert version < "5"
    apart = {name: float(np.abs(np.array(rows) - expected[name]).max()) for name, rows in found.items()}
    sys.stdout.write(f"transformers {version}: {apart}\n")
    assert apart.keys() == expected.keys()
    assert max(apart.values()) < 1e-5
