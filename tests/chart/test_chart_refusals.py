"""What the schema cannot say is refused with words; secrets are never rendered."""

from typing import Any

import pytest

from .conftest import JOBS, Template

JOB = next(path for path in JOBS if path.stem == "train-reranker")
CLAIM = {"storage": {"work": {"claim": "rag"}}}
SHARED = {
    "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "rag"}}, {"name": "gone", "emptyDir": {}}],
    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "gone", "mountPath": "/gone"}],
}


def settings(**values: Any) -> dict[str, Any]:
    return {"settings": values}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([{"command": ""}], "command is empty"),
        ([settings(artifacts=".")], 'settings.artifacts is "."'),
        ([settings(artifacts="./out")], 'settings.artifacts is "./out"'),
        ([settings(artifacts="/cache/out"), CLAIM], 'settings.artifacts is "/cache/out"'),
        ([settings(artifacts="~/out"), CLAIM], 'settings.artifacts is "~/out"'),
        ([settings(artifacts="../out"), CLAIM], 'settings.artifacts is "../out"'),
        ([settings(artifacts="/workshop"), CLAIM], 'settings.artifacts is "/workshop"'),
        ([settings(artifacts="/gone"), {"pod": SHARED}], 'settings.artifacts is "/gone"'),
        ([settings(train={"reranker": {"output_dir": "./r"}})], 'settings.train.reranker.output_dir is "./r"'),
        ([settings(eval={"output_dir": "/tmp/r"})], 'settings.eval.output_dir is "/tmp/r"'),
        ([settings(generate={"documents": "s3://me:word@bucket/d"})], "a user name or a password"),
        ([{"pod": {"env": {"HF_TOKEN": "x"}}}], "pod.env.HF_TOKEN looks like a secret"),
        ([{"pod": {"env": {"AWS_SECRET_ACCESS_KEY": "x"}}}], "secrets.env.AWS_SECRET_ACCESS_KEY"),
        ([{"pod": {"env": {"A": "x"}}, "secrets": {"env": {"A": {"secret": "s", "key": "k"}}}}], "A stands in pod.env and"),
        ([{"secrets": {"env": {"HOME": {"secret": "s", "key": "k"}}}}], "HOME"),
        ([{"pod": {"volumes": [{"name": "tmp", "emptyDir": {}}]}}], '"tmp", a name that is taken'),
        ([{"pod": {"volumeMounts": [{"name": "nowhere", "mountPath": "/x"}]}}], 'the volume "nowhere"'),
        ([{"pod": {"volumeMounts": [{"name": "tmp", "mountPath": "/work/"}]}}], "where the chart mounts something"),
        ([settings(store={"cache_dir": "/var/cache"})], "settings.store.cache_dir"),
    ],
    ids=str,
)  # fmt: skip
def test_it_is_refused_with_words(template: Template, values: list[dict[str, Any]], words: str) -> None:
    """The value, and what would be right."""
    refused = template(JOB, *values)
    assert refused.code
    assert words in refused.err


def test_all_refusals_are_told_at_once(template: Template) -> None:
    """Nobody has to come back three times."""
    refused = template(JOB, {"command": "", "settings": {"artifacts": "."}, "pod": {"env": {"API_KEY": "x"}}})
    assert refused.err.count("\n- ") == 3


@pytest.mark.parametrize(
    "values",
    [
        [settings(artifacts="."), CLAIM],
        [settings(artifacts="./out/put"), CLAIM],
        [settings(artifacts="/work"), CLAIM],
        [settings(artifacts="/shared/rag"), {"pod": SHARED}],
        [settings(eval={"output_dir": "s3://other/report"})],
        [settings(eval={"output_dir": ".hidden/report"})],
        [settings(store={"cache_dir": "/cache/mine"})],
        [settings(store={"cache_dir": "~/mine"})],
        [{"pod": {"env": {"TOKENIZERS_PARALLELISM": "false"}}}],
    ],
    ids=str,
)
def test_what_is_right_is_not_refused(template: Template, values: list[dict[str, Any]]) -> None:
    """Claims, other buckets, words that only look like secrets."""
    assert template(JOB, *values).code == 0


def test_secrets_are_references(template: Template) -> None:
    """The pod names Secrets and keys; no Secret is rendered, no value stands anywhere."""
    rendered = template(
        JOB, {"secrets": {"envFrom": ["s3-credentials"], "env": {"HF_TOKEN": {"secret": "hub", "key": "token"}}}}
    )
    (container,) = rendered.pod["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "s3-credentials"}}]
    (token,) = [variable for variable in container["env"] if variable["name"] == "HF_TOKEN"]
    assert token == {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    assert "Secret" not in {each["kind"] for each in rendered.objects}


def test_the_user_s_environment_wins(template: Template) -> None:
    """Once each, and the settings' own cache folder is not overridden."""
    values = {"pod": {"env": {"HF_HOME": "/shared/hub"}}, "settings": {"store": {"cache_dir": "/cache/mine"}}}
    (container,) = template(JOB, values).pod["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert variables["HF_HOME"] == "/shared/hub"
    assert "NEARER_STORE__CACHE_DIR" not in variables
    assert variables["NEARER_STORE__CACHE_GIBIBYTES"] == "30"


def test_several_nodes_know_each_other(template: Template) -> None:
    """Rank, number and master for torchrun; the master's name is a pod's host name under the service."""
    rendered = template(JOB, {"nodes": 3, "pod": {"gpus": 8}})
    job, service = rendered.one("Job"), rendered.one("Service")
    run = job["metadata"]["name"]
    variables = {each["name"]: each.get("value") for each in rendered.pod["containers"][0]["env"]}
    assert variables["MASTER_ADDR"] == f"{run}-0.{service['metadata']['name']}"
    assert variables["MASTER_PORT"] == str(service["spec"]["ports"][0]["port"])
    assert (variables["NNODES"], variables["NPROC_PER_NODE"]) == ("3", "8")
    assert "NODE_RANK" in variables
    spec = job["spec"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (3, 3, "Indexed")
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (2, 0)
    ingress = rendered.one("NetworkPolicy")["spec"]["ingress"]
    assert ingress == [{"from": [{"podSelector": {"matchLabels": service["spec"]["selector"]}}]}]


@pytest.mark.parametrize(
    ("endpoint", "ports"),
    [
        (None, [443]),
        ("https://s3.example.com", [443]),
        ("http://minio:9000/x", [443, 9000]),
        ("http://minio", [443, 80]),
    ],
)
def test_the_store_s_port_may_be_reached(template: Template, endpoint: str | None, ports: list[int]) -> None:
    """DNS, HTTPS, the S3 endpoint; nobody may reach the pod."""
    policy = template(JOB, settings(store={"s3": {"endpoint": endpoint}}) if endpoint else {}).one("NetworkPolicy")[
        "spec"
    ]
    assert [rule["port"] for rule in policy["egress"][0]["ports"]] == [53, 53, *ports]
    assert policy["ingress"] == []


def test_the_ports_of_all_buckets_may_be_reached(template: Template) -> None:
    """Also of those that are reached in another way than the rest."""
    store = {
        "s3": {"endpoint": "http://minio:9000"},
        "buckets": {"b": {"endpoint": "http://b:9001"}, "a": {"region": "x"}},
    }
    policy = template(JOB, settings(store=store)).one("NetworkPolicy")["spec"]
    assert [rule["port"] for rule in policy["egress"][0]["ports"]] == [53, 53, 443, 9000, 9001]
