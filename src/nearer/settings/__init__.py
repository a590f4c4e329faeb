"""The settings document: `model` says what there is, `load` reads it, `resolve` fills in what a section leaves out."""

from nearer.settings.load import Loaded, load
from nearer.settings.model import Settings

__all__ = ["Loaded", "Settings", "load"]
