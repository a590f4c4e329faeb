"""The settings document: one pydantic model, one section a job."""

from __future__ import annotations

from pydantic import NonNegativeInt

from nearer.settings.evaluate import EvalSettings
from nearer.settings.export import ExportSettings
from nearer.settings.generate import GenerateSettings
from nearer.settings.reindex import ReindexSettings
from nearer.settings.section import Section, execution
from nearer.settings.store import StoreSettings
from nearer.settings.train import TrainSections


class Settings(Section):
    """The whole document."""

    artifacts: str = execution(".", description="Root of all addresses that are not literal: a directory or s3://….")
    seed: NonNegativeInt = 13
    """Seed of every draw."""
    store: StoreSettings = StoreSettings()
    generate: GenerateSettings = GenerateSettings()
    train: TrainSections = TrainSections()
    eval: EvalSettings = EvalSettings()
    export_onnx: ExportSettings = ExportSettings()
    reindex: ReindexSettings = ReindexSettings()
