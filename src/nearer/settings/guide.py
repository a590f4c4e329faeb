"""The names that the guide's `conf/settings.yaml` uses, translated to nearer's own."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from nearer import address
from nearer.errors import InputError
from nearer.settings.document import Document

GUIDE_KEYS = ("enhanced_validation", "fine_tune", "test_fine_tuned", "EMBEDDING_MODEL", "reranker_model_path")
MODEL_TYPES = ("embedding", "reranker")

_GENERATE = {"input_file": "queries", "max_questions": "max_queries"}
_EVAL = {"embedding_model_path": "embedder", "reranker_model_path": "reranker"}


def is_guide(document: Document) -> bool:
    """Whether the document uses any of the guide's names."""
    return any(key in document.values for key in GUIDE_KEYS)


def model_type(document: Document) -> str | None:
    """`fine_tune.model_type`, if the document has it."""
    section = document.values.get("fine_tune")
    value = section.get("model_type") if isinstance(section, dict) else None
    return value if isinstance(value, str) else None


def translate(document: Document, *, trained: str | None, root: str) -> None:
    """Rewrite the guide's names in place.

    Args:
        document: of the file, the environment or `--set`.
        trained: `fine_tune.model_type` of the document that has it.
        root: the artifacts root, to see whether `output_file` is there to be imported.

    Raises:
        InputError: `fine_tune` without a known `model_type`, or a guide section that is no mapping.
    """
    for name in ("enhanced_validation", "fine_tune", "test_fine_tuned"):
        if name in document.values and not isinstance(document.values[name], dict):
            raise InputError(
                f"{name} is {document.values[name]!r}", where=document.place((name,)), rule="a mapping of settings"
            )
    if "enhanced_validation" in document.values:
        _rename(document, "enhanced_validation", _GENERATE)
        _output_file(document, root)
        document.move("enhanced_validation", to=("generate",))
    if "fine_tune" in document.values:
        if trained not in MODEL_TYPES:
            raise InputError(
                f"fine_tune.model_type is {trained!r}",
                where=document.place(("fine_tune", "model_type")),
                rule=f"one of {', '.join(MODEL_TYPES)}",
            )
        document.values["fine_tune"].pop("model_type", None)
        document.move("fine_tune", to=("train", trained))
    if "test_fine_tuned" in document.values:
        _rename(document, "test_fine_tuned", _EVAL)
        document.move("test_fine_tuned", to=("eval",))
    if "EMBEDDING_MODEL" in document.values:
        place = document.places.get(("EMBEDDING_MODEL",), "EMBEDDING_MODEL")
        value = document.values["EMBEDDING_MODEL"]
        document.move("EMBEDDING_MODEL", to=("reindex", "embedder"))
        if "incumbent" not in (document.values.get("eval") or {}):
            document.put(("eval", "incumbent"), value, place=place)
    if "reranker_model_path" in document.values:
        document.move("reranker_model_path", to=("eval", "incumbent_reranker"))


def _rename(document: Document, section: str, names: dict[str, str]) -> None:
    for old, new in names.items():
        if old in document.values[section]:
            document.values[section][new] = document.values[section].pop(old)
            if (section, old) in document.places:
                document.places[(section, new)] = document.places.pop((section, old))


def _output_file(document: Document, root: str) -> None:
    """`output_file` is a file somebody paid for: imported when it is there, never written.

    The dataset directory stands beside it under its stem.
    """
    section = document.values["enhanced_validation"]
    if "output_file" not in section:
        return
    file = section.pop("output_file")
    place = document.places.pop(("enhanced_validation", "output_file"), "enhanced_validation.output_file")
    if not isinstance(file, str) or not PurePosixPath(file).suffix:
        raise InputError(f"enhanced_validation.output_file is {file!r}", where=place, rule="a file name")
    document.put(("enhanced_validation", "output_dir"), file.removesuffix(PurePosixPath(file).suffix), place=place)
    full = address.resolve(file, root=root)
    if address.is_s3(full) or Path(full).exists():
        document.put(("enhanced_validation", "enhanced"), file, place=place)
