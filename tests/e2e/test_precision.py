"""Models that encode and score in fewer bits, as the settings say."""

import json
from collections.abc import Callable
from pathlib import Path

Nearer = Callable[..., tuple[int, str, str]]


def test_an_index_in_bf16_is_another_generation_and_says_so(user: Path, nearer: Nearer) -> None:
    """Its vectors pass the same checks; what this machine cannot compute in is refused before anything is done."""
    for precision in ("fp32", "bf16"):
        code, _, err = nearer("reindex", "--set", f"reindex.precision={precision}")
        assert code == 0, err
    alias = json.loads((user / "indexes/i/aliases/current.json").read_text(encoding="utf-8"))
    assert alias["previous"] not in (None, alias["generation"])
    told = {
        name: json.loads((user / f"indexes/i/generations/{alias[name]}/manifest.json").read_text(encoding="utf-8"))
        for name in ("previous", "generation")
    }
    assert [each["metrics"]["precision"] for each in told.values()] == ["fp32", "bf16"]
    code, _, err = nearer("reindex", "--set", "reindex.precision=fp16")
    assert code == 2
    assert "fp16 needs a GPU" in err


def test_a_report_says_what_its_models_computed_in(user: Path, nearer: Nearer) -> None:
    """And runs in fp32 that are there already are not shown as those of bf16."""
    found = {}
    for precision in ("fp32", "bf16"):
        asked = ("eval", "--set", f"eval.precision={precision}", "--set", f"eval.output_dir=reports/{precision}")
        code, _, err = nearer(*asked, "--set", "eval.reranker=null", "--set", "train.reranker=null")
        assert code == 0, err
        report = json.loads((user / f"reports/{precision}/report.json").read_text(encoding="utf-8"))
        assert {model["precision"] for model in report["models"].values()} == {precision}
        found[precision] = sorted(path.name for path in (user / ".nearer/cache/runs").rglob("*") if path.is_file())
    assert len(found["bf16"]) > len(found["fp32"])
