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
        RerankerSettings(batch_size=32, loss="listwise", max_share_of_positive=0.9),
    ],
    ids=["embedding", "adapters", "reranker"],
)
def test_every_setting_of_a_training_reaches_it(section: EmbeddingSettings | RerankerSettings) -> None:
    """None is forgotten, and none is changed on its way to another process."""
    training = training_of(section)
    assert asdict(pickle.loads(pickle.dumps(training))) == section.model_dump(exclude=ADDRESSES)
