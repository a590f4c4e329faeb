"""What those who train are told is what the settings say."""

import pickle
from dataclasses import asdict

import pytest

from nearer.settings.train import EmbeddingSettings, FreezeSettings, LoraSettings, RerankerSettings
from nearer.train.run import training_of

ADDRESSES = {"dataset", "base_model", "output_dir", "retriever"}
"""Fields that `run` itself makes something of."""


@pytest.mark.parametrize(
    "section",
    [
        EmbeddingSettings(scale=7, freeze=FreezeSettings(layers=3), report_to=["tensorboard"]),
        EmbeddingSettings(lora=LoraSettings(rank=4, targets=["query_key_value"])),
        RerankerSettings(batch_size=32, loss="listwise", curriculum=0.9),
    ],
    ids=["embedding", "adapters", "reranker"],
)
def test_every_setting_of_a_training_reaches_it(section: EmbeddingSettings | RerankerSettings) -> None:
    """None is forgotten, and none is changed on its way to another process."""
    training = training_of(section)
    expected = section.model_dump(exclude=ADDRESSES) | {"learning_rate": section.peak_learning_rate}
    assert asdict(pickle.loads(pickle.dumps(training))) == expected


def test_adapters_learn_faster_unless_told_otherwise() -> None:
    """A rate that is not set depends on what trains; written out it is the same work."""
    whole, adapters = EmbeddingSettings(), EmbeddingSettings(lora=LoraSettings())
    assert (training_of(whole).learning_rate, training_of(adapters).learning_rate) == (2e-5, 1e-4)
    assert training_of(EmbeddingSettings(lora=LoraSettings(), learning_rate=3e-5)).learning_rate == 3e-5
    assert EmbeddingSettings(learning_rate=2e-5).result_fields() == whole.result_fields()
