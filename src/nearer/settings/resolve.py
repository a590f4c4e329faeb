"""What a section takes when the user leaves an input out: the output of the section that makes it."""

from __future__ import annotations

from nearer.settings.model import Settings
from nearer.settings.train import EmbeddingSettings, RerankerSettings


def embedding(settings: Settings) -> EmbeddingSettings:
    """The `train.embedding` section, or its defaults."""
    return settings.train.embedding or EmbeddingSettings()


def reranker(settings: Settings) -> RerankerSettings:
    """The `train.reranker` section, or its defaults."""
    return settings.train.reranker or RerankerSettings()


def generate_embedder(settings: Settings) -> str:
    """The model that counts tokens, mines and judges: the one that will be trained, else the one in use today."""
    given = settings.generate.embedder
    if given is None and settings.train.embedding is None:
        given = settings.eval.incumbent
    return given or embedding(settings).base_model


def dataset_of(settings: Settings, given: str | None) -> str:
    """The dataset that a section names, or the one that `generate` makes."""
    return given or settings.generate.output_dir


def eval_base_embedder(settings: Settings) -> str:
    """The embedder before."""
    return settings.eval.base_embedder or embedding(settings).base_model


def eval_embedder(settings: Settings) -> str | None:
    """The embedder after; None when none is named and none is trained."""
    trained = settings.train.embedding.output_dir if settings.train.embedding else None
    return settings.eval.embedder or trained


def eval_reranker(settings: Settings) -> str | None:
    """The reranker after; None when none is named and none is trained."""
    trained = settings.train.reranker.output_dir if settings.train.reranker else None
    return settings.eval.reranker or trained


def reranker_retriever(settings: Settings) -> str | None:
    """The embedder that the reranker comes after; None when none is named and it does not start from the tuned one."""
    section = reranker(settings)
    starts = settings.train.embedding is not None and section.base_model == settings.train.embedding.output_dir
    return section.retriever or (section.base_model if starts else None)


def eval_base_reranker(settings: Settings) -> str | None:
    """The reranker before; None when none is named and none is trained."""
    base = settings.train.reranker.base_model if settings.train.reranker else None
    return settings.eval.base_reranker or base


def export_reranker(settings: Settings) -> str:
    """The reranker that is exported."""
    return settings.export_onnx.reranker or reranker(settings).output_dir


def reindex_documents(settings: Settings) -> str:
    """The documents that are indexed."""
    return settings.reindex.documents or settings.generate.documents


def reindex_embedder(settings: Settings) -> str:
    """The embedder that encodes the index."""
    return settings.reindex.embedder or embedding(settings).output_dir
