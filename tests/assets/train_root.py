"""What a training begins with: a root that holds a dataset and a base model."""

from pathlib import Path

from nearer.corpus.dataset import Dataset
from nearer.progress import Silent
from nearer.store import Built, Store, open_store, produce
from nearer.testing import Architecture, korean_dataset, tiny_cross_encoder, tiny_embedder


def put_dataset(store: Store, dataset: Dataset) -> None:
    """Publish it where `generate` would."""

    def build(directory: Path, _work: object) -> Built:
        dataset.write(directory)
        return Built()

    produce(
        store,
        Silent(),
        kind="dataset",
        name="generate",
        address="datasets/dataset",
        fingerprint="d" * 64,
        inputs={},
        settings={},
        build=build,
    )


def prepare(root: Path, model: str, *, architecture: Architecture = "bert") -> Path:
    """A dataset, `base`, and for a reranker `embedder`, which may be its retriever."""
    put_dataset(open_store(str(root)), korean_dataset(50, 1))
    if model == "embedding":
        tiny_embedder(root / "base", architecture=architecture)
    else:
        tiny_cross_encoder(root / "base")
        tiny_embedder(root / "embedder")
    return root
