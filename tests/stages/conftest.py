"""What the stages share: an environment with the libraries that many users still run."""

import os
import subprocess
import venv
from importlib import metadata

import pytest

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
