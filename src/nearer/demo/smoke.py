"""`python -m nearer.demo.smoke DIRECTORY`: what jobs/smoke.yaml runs on, made without a model hub.

Documents, questions, and a model of two layers with random weights: an image holds them at /opt/nearer/smoke, so that
a cluster can be tried out before any data and any model are there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nearer.cli.execute import guarded
from nearer.errors import InputError
from nearer.testing import korean_documents, tiny_embedder

_DOCUMENTS = 40
_ASKED = 12


def prepare(directory: Path) -> int:
    """Write `documents.jsonl`, `eval.jsonl` and `model/`; the same bytes every time.

    Returns:
        The exit code, 0.
    """
    directory.mkdir(parents=True, exist_ok=True)
    documents = korean_documents(_DOCUMENTS, seed=5)
    questions = [
        {
            "eval_id": f"q{number}",
            "msg": [{"role": "user", "content": f"{document['content'][:18]} 알려 주세요"}],
            "ground_truth_doc_id": document["docid"],
        }
        for number, document in enumerate(documents[:_ASKED])
    ]
    _write(directory / "documents.jsonl", documents)
    _write(directory / "eval.jsonl", questions)
    tiny_embedder(directory / "model")
    return 0


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Prepare the one directory that is named."""

    def call() -> int:
        if len(arguments) != 1:
            raise InputError("which directory?", way_out="python -m nearer.demo.smoke DIRECTORY")
        return prepare(Path(arguments[0]))

    return guarded(call)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
