"""The export in the hands of sentence-transformers' own ONNX backend and optimum, which need transformers before 4.58.

They cannot live beside transformers 5, so they get an environment of their own, see conftest.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nearer.models.load import load_reranker
from nearer.models.save import save_reranker
from nearer.models.source import find_model
from nearer.progress import Silent
from nearer.settings.model import Settings
from nearer.store import open_store
from nearer.testing import tiny_cross_encoder

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]
PAIRS = [
    ["가습기 물때세척", "가습기의 물때세척은 춘천 서비스센터에서 3일 안에 처리한다."],
    ["제습기", "총무팀"],
    ["온수매트 보증기간은 얼마나 됩니까?", "비용은 3천 원이고 총무팀 예산에서 나간다. " * 60],
]
READER = """
import json, sys
import torch, transformers
from optimum.onnxruntime import ORTModelForSequenceClassification
from sentence_transformers import CrossEncoder

request = json.load(sys.stdin)
found = {"transformers": transformers.__version__}
for name, directory in request["onnx"].items():
    model = CrossEncoder(directory, backend="onnx", model_kwargs={"provider": "CPUExecutionProvider"})
    found[f"{name}, sentence-transformers"] = model.predict(request["pairs"]).tolist()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    session = ORTModelForSequenceClassification.from_pretrained(directory, subfolder="onnx")
    left, right = zip(*request["pairs"])
    features = tokenizer(left, right, padding=True, truncation=True, return_tensors="pt")
    found[f"{name}, optimum"] = session(**features).logits[:, 0].tolist()
found["pytorch"] = CrossEncoder(request["pytorch"], device="cpu").predict(request["pairs"]).tolist()
json.dump(found, sys.stdout)
"""


def test_their_scores_are_ours(python: str, workdir: Path) -> None:
    """fp32 and int8 load as they are, and give the logits that PyTorch and our own reader give."""
    from nearer.export.run import run
    from nearer.models.onnx import load_onnx_reranker

    store = open_store(".")
    reranker = load_reranker(find_model(str(tiny_cross_encoder(workdir / "reranker")), store=store), device="cpu")
    save_reranker(reranker, workdir / "saved")
    asked = {"reranker": "./saved", "output_dir": "onnx", "min_rank_agreement": 0.0}
    run(Settings.model_validate({"export_onnx": asked}), store, Silent())
    directories = {"fp32": str(workdir / "onnx"), "int8": str(workdir / "onnx/int8")}
    request = {"onnx": directories, "pytorch": str(workdir / "saved"), "pairs": PAIRS}
    answer = subprocess.run(
        [python, "-c", READER], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    sys.stderr.write(answer.stderr)
    assert answer.returncode == 0
    found = json.loads(answer.stdout)
    sys.stdout.write(f"{found}\n")
    assert found.pop("transformers") < "4.58"
    pairs = [(query, passage) for query, passage in PAIRS]
    reference = reranker.score(pairs)
    quantised = load_onnx_reranker(Path("onnx/int8"), threads=1).score(pairs)
    assert set(found) == {
        "pytorch", "fp32, sentence-transformers", "fp32, optimum", "int8, sentence-transformers", "int8, optimum"
    }  # fmt: skip
    for name, scores in found.items():
        np.testing.assert_allclose(scores, quantised if "int8" in name else reference, atol=1e-4, err_msg=name)
