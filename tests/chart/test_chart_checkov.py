"""What a widely used scanner of Kubernetes objects says, and why it may say these things."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .conftest import CACHE, JOBS, Template
from .test_chart_render import OPTIONS

CHECKOV = "checkov==3.3.30"
EXPLAINED = {
    "CKV_K8S_11": "no CPU limit: it throttles a training while cores stand idle; set pod.resources.limits.cpu to have one",
    "CKV_K8S_15": "IfNotPresent: the image is some gigabytes; set image.pullPolicy",
    "CKV_K8S_35": "secrets.env: the clients of a language model, of Hugging Face and of S3 read their keys from it",
    "CKV_K8S_43": "a tag by default: a chart cannot know the digest in your registry; set image.digest",
}
OF_AN_OPTION = {
    "CKV_K8S_19": "pod.hostNetwork: for clusters without DNS, and off by default",
    "CKV_K8S_40": "pod.user: null: the platform gives a high uid, which the scanner cannot see",
    "CKV2_K8S_6": "networkPolicy.enabled: false: for platforms that bring their own",
}


@pytest.fixture(scope="session")
def checkov() -> Path:
    """checkov in an environment of its own, since it pins what nearer uses as well; installed once."""
    directory = CACHE / CHECKOV.replace("==", "-")
    binary = directory / "bin" / "checkov"
    if not binary.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        pip = [str(directory / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, CHECKOV], check=True)
    return binary


@pytest.mark.full
def test_no_failed_check_is_unexplained(checkov: Path, template: Template) -> None:
    """All job files and all options at once; an explanation that nothing needs any more is removed."""
    runs = {f"job {job.stem}": template(job) for job in JOBS}
    runs |= {f"option {name}": template(JOBS[-1], values) for name, values in OPTIONS.items()}
    with tempfile.TemporaryDirectory() as directory:
        for name, rendered in runs.items():
            path = Path(directory) / f"{name.replace(' ', '-').replace(',', '')}.yaml"
            path.write_text(rendered.out, encoding="utf-8")
        arguments = ["-d", directory, "--framework", "kubernetes", "--skip-download", "--quiet", "-o", "json"]
        done = subprocess.run([str(checkov), *arguments], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    failed = {(check["check_id"], Path(check["file_path"]).stem) for check in report["results"]["failed_checks"]}
    unexplained = {each for each in failed if each[0] not in EXPLAINED | OF_AN_OPTION}
    assert unexplained == set()
    assert {check for check, where in failed if where.startswith("job-")} == EXPLAINED.keys()
    assert {check for check, _ in failed} == (EXPLAINED | OF_AN_OPTION).keys()
    assert report["summary"]["parsing_errors"] == 0
    print(f"checkov passed {report['summary']['passed']} checks over {len(runs)} renderings")
