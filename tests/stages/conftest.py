"""What the stages share: trainings of several processes, and an environment with libraries that many users still run."""

import os
import subprocess
import venv
from collections.abc import Iterator
from importlib import metadata

import pytest

from .processes import Processes

GIVEN = os.environ.get("NEARER_TEST_OPTIMUM_PYTHON")


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with sentence-transformers, optimum-onnx and an older transformers.

    One that NEARER_TEST_OPTIMUM_PYTHON names, else one that is made here with pip, which takes some two minutes and
    1.5 GB.
    """
    if GIVEN:
        return GIVEN
    directory = tmp_path_factory.mktemp("optimum")
    venv.create(directory, with_pip=True)
    interpreter = str(directory / "bin/python")
    torch = metadata.version("torch").partition("+")[0]
    packages = [f"torch=={torch}", "transformers<4.58", "sentence-transformers>=5", "optimum-onnx[onnxruntime]"]
    subprocess.run([interpreter, "-m", "pip", "install", "--quiet", *packages], check=True)
    return interpreter


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """Starts trainings; what they import is imported once."""
    processes = Processes()
    yield processes
    processes.close()
