"""The verdict as CI sees it: exit code, step summary, termination message."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Nearer = Callable[..., tuple[int, str, str]]


def test_a_refused_model_fails_the_job_and_writes_the_reason_where_ci_shows_it(
    user: Path, nearer: Nearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 3 with the verdict as the last words; the same command gives the same code without computing again."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(user / "step.md"))
    termination = user / "termination-log"
    termination.touch()
    monkeypatch.setattr("nearer.process._TERMINATION_LOG", termination)
    (user / "step.md").write_text("an earlier step\n", encoding="utf-8")
    asked = ("eval", "--set", "eval.gate=true", "--set", "eval.reranker=null", "--set", "train.reranker=null")
    asked = (*asked, "--set", "eval.embedder=models/base", "--set", "eval.speed_queries=1")
    code, out, err = nearer(*asked)
    assert code == 3, err
    assert "verdict: do not ship" in out
    assert "no difference" in out
    assert "refused: do not ship: tuned-hybrid against incumbent" in err
    assert f"report: {user}/reports/r/report.html" in out
    left = json.loads(termination.read_text(encoding="utf-8"))
    assert (left["stage"], left["code"], left["artifact"]) == ("eval", 3, f"{user}/reports/r")
    assert left["reason"].startswith("do not ship: tuned-hybrid against incumbent")
    summary = (user / "step.md").read_text(encoding="utf-8")
    assert summary.startswith("an earlier step\n# ❌ Verdict: do not ship\n")
    report = json.loads((user / "reports/r/report.json").read_text(encoding="utf-8"))
    assert report["verdict"]["checks"][0]["state"] == "fail"
    code, _, err = nearer(*asked)
    assert code == 3
    assert "already done: eval" in err
    assert json.loads(termination.read_text(encoding="utf-8")) == left
