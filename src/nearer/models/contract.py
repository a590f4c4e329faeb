"""The model contract: everything that two sides must agree on for their vectors or scores to mean the same.

It stands as `contract.json` in every model, ONNX and index artifact. Mining, training, evaluation, export, indexing and
querying read it; nobody retypes a prefix.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from nearer.errors import ArtifactCorrupt, ContractMismatch

CONTRACT = "contract.json"


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What an embedder or reranker expects and produces. Fields that do not apply are None (a reranker's pooling)."""

    kind: Literal["embedder", "reranker"]
    base_model: str
    base_revision: str
    weights_sha256: str
    tokenizer_sha256: str
    special_tokens: dict[str, int] = field(default_factory=dict)
    padding_side: Literal["right", "left"] = "right"
    end_token: str | None = None
    """The special token that ends every text, put there by the tokenizer; last-token pooling reads its vector."""
    pooling: Literal["mean", "cls", "lasttoken"] | None = None
    normalize: bool | None = None
    similarity: Literal["cosine", "dot"] | None = None
    dimension: int | None = None
    query_prefix: str = ""
    passage_prefix: str = ""
    passage_template: str = "{title}\n{path}\n{text}"
    chunker: str | None = None
    chunk_tokens: int | None = None
    max_query_tokens: int | None = None
    max_passage_tokens: int | None = None
    max_pair_tokens: int | None = None
    rerank_weight: float | None = None
    """A reranker's weight beside the scores of the list that it is given, both brought to [0, 1] (`fuse.interpolate`);
    None: none was chosen, and it counts alone."""

    def save(self, directory: Path) -> None:
        """Write `contract.json` into the directory."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n"
        (directory / CONTRACT).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Contract | None:
        """Read `contract.json`; None if there is none (a base model).

        Raises:
            ArtifactCorrupt: it is there and cannot be read.
        """
        path = directory / CONTRACT
        return cls.from_json(path.read_text(encoding="utf-8"), where=str(path)) if path.exists() else None

    @classmethod
    def from_json(cls, text: str, *, where: str) -> Contract:
        """Read the text of a `contract.json`.

        Raises:
            ArtifactCorrupt: it is none.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise ArtifactCorrupt(f"not a model contract: {error}", where=where) from error

    def require_same(self, other: Contract, *, ours: str, theirs: str) -> None:
        """Refuse to work with a model or index of another contract.

        Raises:
            ContractMismatch: showing both sides of every field that differs.
        """
        sides = [(item.name, getattr(self, item.name), getattr(other, item.name)) for item in fields(self)]
        different = [
            f"{name}: {ours} has {_short(mine)}, {theirs} has {_short(its)}" for name, mine, its in sides if mine != its
        ]
        if different:
            raise ContractMismatch(
                f"{ours} and {theirs} were made by different contracts:\n    " + "\n    ".join(different),
                rule="queries and index use the same model, prefixes, pooling and lengths",
                way_out="query with the model that made the index, or reindex with the new one",
            )


def render_passage(template: str, *, title: str, path: tuple[str, ...], text: str) -> str:
    """What a model is given for a passage, without its prefix: the template's lines, those left empty dropped."""
    values = {"title": title.strip(), "path": " > ".join(part.strip() for part in path), "text": text.strip()}
    lines = []
    for line in template.split("\n"):
        shown = line
        for name, value in values.items():
            shown = shown.replace("{" + name + "}", value)
        if shown.strip():
            lines.append(shown)
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
