"""A job file becomes a Job once, whoever submits it how often, and a submitter that died in between is made good."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_case import JOB, MESSAGE, ROOT, Case, submitter_rules, well
from kubernetes_double import Answer, Object, Server
from kubernetes_life import Life

from nearer.cli.app import run
from nearer.cluster.render import render
from nearer.errors import InputError, NearerError, NoPermission, SettingsError

RUN = "train-reranker-"
MISSPELLED = 'pod.affinity={"nodeAffinity": {"requiredDuringScheduling": {}}}'
"""A key that the chart hands on as it is, and Kubernetes does not know."""


def jobs(api: Server) -> list[Object]:
    return api.all("jobs")


def one(api: Server, plural: str) -> Object:
    (found,) = api.all(plural)
    return found


def submitted(case: Case, *assignments: str, **options: object) -> tuple[int, str, str]:
    """`nearer submit` without --follow."""
    case.capsys.readouterr()
    code = case.session(*assignments, **options).submit(follow=False, on_interrupt="detach")
    out, err = case.capsys.readouterr()
    return code, out, err


def writes(api: Server) -> list[tuple[str, str]]:
    """What was written, in order."""
    return [(verb, resource) for verb, resource, _ in api.requests if verb in {"create", "patch", "delete"}]


def test_all_objects_belong_to_the_job(case: Case) -> None:
    """So they go when it goes; they are no release of Helm's, and the settings came last."""
    code, out, err = submitted(case)
    assert code == 0
    job = one(case.api, "jobs")
    assert job["metadata"]["name"].startswith(RUN)
    assert "is submitted" in err
    assert "--follow" in out
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"],
             "blockOwnerDeletion": True}  # fmt: skip
    for plural in ("configmaps", "networkpolicies", "serviceaccounts"):
        item = one(case.api, plural)
        assert item["metadata"]["ownerReferences"] == [owner], plural
        assert item["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "nearer"
    made = [plural for _, how, plural, _ in case.api.history if how == "ADDED"]
    assert made == ["serviceaccounts", "jobs", "networkpolicies", "configmaps"]
    case.api.remove("jobs", job["metadata"]["name"])
    assert case.api.objects == {}


def test_the_name_is_the_one_that_helm_gives(case: Case) -> None:
    """So a run that Helm installed is found by submit."""
    submitted(case)
    rendered = (ROOT / "tests/chart/golden/train-reranker.yaml").read_text(encoding="utf-8")
    helms = rendered.partition("  name: tune-")[2][:10]
    submitted(case, name="tune")
    assert f"tune-{helms}" in [job["metadata"]["name"] for job in jobs(case.api)]


def test_a_second_submit_while_it_runs_attaches(case: Case) -> None:
    """Nothing new is made, and what was said already is shown from the start."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "one", "two")
        life.read(pod, 2)
        life.write(pod, "three")
        life.end(pod, 0, message=MESSAGE)
        life.complete()

    case.lives(life)
    submitted(case)
    before = one(case.api, "jobs")["metadata"]["uid"]
    code, out, err = case.follow()
    assert code == 0
    assert case.lines(out) == ["[aaaaa] one", "[aaaaa] two", "[aaaaa] three"]
    assert "is there already, and active" in err
    assert one(case.api, "jobs")["metadata"]["uid"] == before


def test_what_may_change_in_a_run_changes(case: Case) -> None:
    """Deadline and retries of the active Job follow the file; it stays the same run."""
    submitted(case, "activeDeadlineSeconds=3600", "ttlSecondsAfterFinished=60")
    before = one(case.api, "jobs")
    _, _, err = submitted(case, "activeDeadlineSeconds=7200", "networkPolicy.egressPorts=[443, 9000]")
    job = one(case.api, "jobs")
    assert job["metadata"]["uid"] == before["metadata"]["uid"]
    assert job["spec"]["activeDeadlineSeconds"] == 7200
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert "activeDeadlineSeconds is 7200 now" in err
    assert {"port": 9000, "protocol": "TCP"} in one(case.api, "networkpolicies")["spec"]["egress"][0]["ports"]
    _, _, err = submitted(case, "activeDeadlineSeconds=7200", "networkPolicy.egressPorts=[443, 9000]")
    assert "now" not in err


def test_a_run_that_is_done_is_told_from_what_is_stored(case: Case) -> None:
    """Without --follow as well; no pod is asked anything twice."""
    case.lives(well)
    assert case.follow()[0] == 0
    code, out, err = submitted(case)
    assert code == 0
    assert "was done already" in err
    assert "models/reranker" in out
    assert len([each for each in case.api.history if each[1] == "ADDED" and each[2] == "jobs"]) == 1


def test_a_run_that_failed_is_made_again(case: Case) -> None:
    """The old Job goes with its pods before the new one comes, and the objects belong to the new one."""

    def badly(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.end(pod, 2, message={**MESSAGE, "code": 2, "reason": "no dataset"})
        life.fail("PodFailurePolicy", "…")

    def better(life: Life) -> None:
        assert case.api.all("pods") == []
        well(life)

    case.lives(badly, better)
    assert case.follow()[0] == 2
    old = one(case.api, "jobs")["metadata"]["uid"]
    code, out, err = case.follow()
    assert code == 0
    assert "failed; it is made again" in err
    assert case.lines(out) == ["[aaaaa] hello", "[aaaaa] bye"]
    job = one(case.api, "jobs")["metadata"]["uid"]
    assert job != old
    for plural in ("configmaps", "networkpolicies", "serviceaccounts"):
        assert [each["uid"] for each in one(case.api, plural)["metadata"]["ownerReferences"]] == [job]


@pytest.mark.parametrize(
    ("died", "times"),
    [("serviceaccounts", 2), ("jobs", 2), ("serviceaccounts", 3), ("networkpolicies", 2), ("configmaps", 2)],
)
def test_a_submitter_that_died_in_between(case: Case, died: str, times: int) -> None:
    """Before each object that it makes (the first time is the dry run's, and the account is written twice): the next
    submit makes what is missing, and the pod that waited starts."""
    case.lives(well)
    at = ("create" if died == "jobs" else "patch", died)
    seen: list[tuple[str, str]] = []
    session = case.session()
    allow = case.api.may

    def may(verb: str, group: str, resource: str) -> bool:
        seen.append((verb, resource))
        if seen[-1] == at and seen.count(at) == times:
            raise Answer(400, "Died", "died")
        return allow(verb, group, resource)

    case.api.may = may  # type: ignore[method-assign]
    with pytest.raises(NearerError, match="died"):
        session.submit(follow=False, on_interrupt="detach")
    case.api.may = allow  # type: ignore[method-assign]
    code, out, _ = case.follow()
    assert code == 0
    assert case.lines(out) == ["[aaaaa] hello", "[aaaaa] bye"]
    job = one(case.api, "jobs")["metadata"]["uid"]
    for plural in ("configmaps", "networkpolicies", "serviceaccounts"):
        assert [each["uid"] for each in one(case.api, plural)["metadata"]["ownerReferences"]] == [job]


def test_two_submitters_at_once(case: Case) -> None:
    """One Job; both are content."""
    ready = threading.Barrier(2)
    done: list[int] = []

    def submit() -> None:
        session = case.session()
        ready.wait()
        done.append(session.submit(follow=False, on_interrupt="detach"))

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [0, 0]
    assert len(jobs(case.api)) == 1


@pytest.mark.parametrize("verb", ["create", "get"])
def test_an_answer_that_never_came(case: Case, verb: str) -> None:
    """Asked again; a Job that had been made after all is attached to."""
    case.api.fail_next += [
        (verb, "jobs", None),
        (verb, "jobs", Answer(503, "ServiceUnavailable", "etcd leader changed")),
    ]
    assert submitted(case)[0] == 0
    assert len(jobs(case.api)) == 1


def test_several_runs_share_a_service_account(case: Case) -> None:
    """It goes with the last of them; and somebody is told that the other one still runs."""
    submitted(case)
    _, _, err = submitted(case, "train.reranker.epochs=0.5")
    first, second = jobs(case.api)
    assert f"{first['metadata']['name']} of the same name" in err or f"{second['metadata']['name']} of the same" in err
    owners = one(case.api, "serviceaccounts")["metadata"]["ownerReferences"]
    assert {owner["uid"] for owner in owners} == {first["metadata"]["uid"], second["metadata"]["uid"]}
    case.api.remove("jobs", first["metadata"]["name"])
    assert len(case.api.all("serviceaccounts")) == 1
    case.api.remove("jobs", second["metadata"]["name"])
    assert case.api.objects == {}


def test_a_service_account_of_somebody_else_is_left_alone(case: Case) -> None:
    """The platform's own, with its own annotations."""
    meta = {"name": "train-reranker", "annotations": {"eks.amazonaws.com/role-arn": "theirs"}}
    case.api.put("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}, how="ADDED")
    assert submitted(case)[0] == 0
    account = one(case.api, "serviceaccounts")["metadata"]
    assert account["annotations"] == meta["annotations"]
    assert "ownerReferences" not in account


def test_another_tool_s_failed_job_is_not_removed(case: Case) -> None:
    """What Helm installed is Helm's; what has the name by chance is its maker's."""
    submitted(case)
    job = one(case.api, "jobs")
    job["metadata"]["annotations"] = {"meta.helm.sh/release-name": "tune"}
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "x", "message": "x"}]}
    case.api.put("jobs", job)
    with pytest.raises(InputError, match="belongs to the Helm release tune") as raised:
        submitted(case)
    assert "helm uninstall tune -n rag" in str(raised.value)
    job["metadata"]["labels"] = {}
    case.api.put("jobs", job)
    with pytest.raises(InputError, match="none of nearer's"):
        submitted(case)


def test_an_object_that_the_server_refuses(case: Case) -> None:
    """In its words, exit 2, before anything is made: the chart hands `affinity` on as it is."""
    with pytest.raises(InputError, match=r"the cluster refuses to create the Job .*requiredDuring") as raised:
        submitted(case, MISSPELLED)
    assert raised.value.code == 2
    assert case.api.objects == {}


def test_warnings_of_pod_security_are_shown(case: Case) -> None:
    """A Job is never refused for its pod, so the warning is the only word before no pod ever comes."""
    case.api.pod_security = "restricted"
    assert "warning" not in submitted(case)[2]
    _, _, err = submitted(case, "pod.hostNetwork=true")
    assert 'warning: would violate PodSecurity "restricted:latest": hostNetwork' in err


@pytest.mark.parametrize("missing", ["jobs", "configmaps", "networkpolicies", "serviceaccounts"])
def test_a_right_that_is_missing(case: Case, missing: str) -> None:
    """Which one, where the manifest is, and who tells what else is missing; nothing is made."""
    case.api.rules = [
        {**rule, "resources": [name for name in rule["resources"] if name != missing]} for rule in submitter_rules()
    ]
    with pytest.raises(NoPermission, match=missing) as raised:
        submitted(case)
    assert "docs/submitter-rbac.yaml" in str(raised.value)
    assert "nearer doctor cluster" in str(raised.value)
    assert case.api.objects == {}


@pytest.mark.parametrize(
    "message",
    ['jobs.batch "x" is forbidden: exceeded quota: jobs, used: 4, limited: 4', "admission webhook denied: no tag"],
)
def test_a_policy_that_refuses_is_no_missing_right(case: Case, message: str) -> None:
    """A quota or an admission policy also says 403; its words count, the manifest would not help."""
    case.api.fail_next.append(("create", "jobs", Answer(403, "Forbidden", message)))
    with pytest.raises(InputError, match="the cluster refuses to create the Job") as raised:
        submitted(case)
    assert message in str(raised.value)
    assert "submitter-rbac" not in str(raised.value)


def test_credentials_that_ran_out_are_read_again(case: Case) -> None:
    """Once; the command does not end in the middle of a night."""
    case.api.fail_next.append(("get", "jobs", Answer(401, "Unauthorized", "Unauthorized")))
    assert submitted(case)[0] == 0
    case.api.fail_next += [("get", "jobs", Answer(401, "Unauthorized", "Unauthorized"))] * 2
    with pytest.raises(NoPermission, match="does not know these credentials"):
        submitted(case)


def test_a_dry_run_touches_nothing(case: Case) -> None:
    """It says what would be made and what it needs, and the server has looked at every object."""
    case.capsys.readouterr()
    assert case.session("pod.gpus=2", 'secrets.envFrom=["s3"]', "queue=gpus").dry_run() == 0
    out = case.capsys.readouterr().out
    for words in (
        "nearer train reranker",
        "nvidia.com/gpu 2",
        "s3",
        "gpus",
        "not there yet, would be made",
        "rag/train",
    ):
        assert words in out
    assert case.api.objects == {}
    assert writes(case.api)
    with pytest.raises(InputError, match="requiredDuring"):
        case.session(MISSPELLED).dry_run()


def test_a_dry_run_says_what_stands_there(case: Case) -> None:
    """Active, done."""
    submitted(case)
    case.capsys.readouterr()
    assert case.session().dry_run() == 0
    assert "active already, would be attached to" in case.capsys.readouterr().out


def test_a_dry_run_without_a_cluster(case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings and chart are checked all the same."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert case.session().dry_run() == 0
    assert "not checked by a cluster: none is configured" in case.capsys.readouterr().out
    assert case.api.requests == []


def test_cancel_ends_it_and_leaves_its_pods_time(case: Case) -> None:
    """The Job goes after its pods; a submit right after that waits, and makes it again."""
    ending, go = threading.Event(), threading.Event()

    def leave(_: Object) -> None:
        ending.set()
        go.wait(20)

    case.api.on_delete_job = leave
    submitted(case)
    assert case.session().cancel() == 0
    assert "is ending; its pods have 300 seconds for a last checkpoint" in case.capsys.readouterr().out
    assert ending.wait(20)
    assert case.session().cancel() == 0
    assert "is being ended already" in case.capsys.readouterr().out
    old = one(case.api, "jobs")["metadata"]["uid"]
    again = threading.Thread(target=submitted, args=(case,))
    again.start()
    life = Life(case.api, one(case.api, "jobs"))
    life.asked("jobs", 12)
    assert one(case.api, "jobs")["metadata"]["uid"] == old
    go.set()
    again.join(20)
    assert one(case.api, "jobs")["metadata"]["uid"] != old


def test_cancel_of_what_is_not_there(case: Case) -> None:
    """No error: what was wanted is so; but other runs of the name are named."""
    submitted(case, "train.reranker.epochs=0.5")
    case.capsys.readouterr()
    assert case.session().cancel() == 0
    out = case.capsys.readouterr().out
    assert "nothing to end" in out
    assert one(case.api, "jobs")["metadata"]["name"] in out


def test_github_gets_annotation_summary_and_outputs(
    case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reason where the pull request shows it, and what the next step can use."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "::error::not ours")
        life.end(
            pod,
            3,
            message={**MESSAGE, "code": 3, "reason": "nDCG@10 fell by 3 %\n::set-output", "artifact": "reports/x"},
        )
        life.fail("PodFailurePolicy", "…")

    case.lives(life)
    code, out, _ = case.follow()
    assert code == 3
    commands = [line for line in out.splitlines() if line.startswith("::")]
    (error,) = [line for line in commands if line.startswith("::error")]
    assert "nDCG@10 fell by 3 %25%0A::set-output" in error
    assert error.startswith(f"::error title={one(case.api, 'jobs')['metadata']['name']}%3A exit 3%2C the work ran")
    summary = (tmp_path / "summary").read_text(encoding="utf-8")
    assert "| Exit code | 3: the work ran, and a gate refused the result |" in summary
    assert "| nDCG@10 | 0.71 |" in summary
    outputs = (tmp_path / "output").read_text(encoding="utf-8").splitlines()
    at = {line.partition("<<")[0]: number for number, line in enumerate(outputs) if "<<nearer_" in line}
    values = {name: outputs[number + 1] for name, number in at.items()}
    assert values["exit_code"] == "3"
    assert values["artifact"] == "reports/x"
    assert json.loads(values["metrics"]) == {"nDCG@10": 0.71}
    assert values["namespace"] == "rag"


@pytest.mark.parametrize(
    ("number", "options", "code", "words", "left"),
    [
        (signal.SIGINT, [], 130, "goes on without being followed", 1),
        (signal.SIGTERM, [], 75, "goes on without being followed", 1),
        (signal.SIGINT, ["--on-interrupt", "cancel"], 130, "is ending; its pods have", 0),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C, cancel"],
)
def test_an_interrupt_while_following(
    case: Case, number: signal.Signals, options: list[str], code: int, words: str, left: int
) -> None:
    """Left alone or ended, as asked; with the command that goes on."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "one")

    case.lives(life)
    # Tests that run in the background would hand on that Ctrl-C is ignored.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "nearer.cli.app", "submit", str(JOB)]
    command += ["--set", "pod.gpus=2", "--follow", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        assert follower.stderr
        assert follower.stdout.readline() == "[aaaaa] one\n"
        follower.send_signal(number)
        got = follower.wait(60)
        said = follower.stderr.read()
    assert got == code, said
    assert words in said
    assert f"nearer submit {JOB} --set pod.gpus=2 --follow" in said
    case.api.wait(lambda: len([key for key in case.api.objects if key[0] == "jobs"]) == left, "the Job's end")


def settings_file(tmp_path: Path) -> list[str]:
    path = tmp_path / "nearer.yaml"
    path.write_text("artifacts: s3://b/p\n", encoding="utf-8")
    return [str(path)]


def no_helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("nearer.cluster.session.render", render)
    return [str(JOB)]


def no_package(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    return [str(JOB)]


def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return [str(JOB)]


def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "broken").write_text("apiVersion: v1\nkind: Config\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
    return [str(JOB)]


def nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case) -> list[str]:
    text = case.kubeconfig.read_text()
    (tmp_path / "deaf").write_text(text.replace("http://127.0.0.1:", "http://127.0.0.1:1/"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "deaf"))
    monkeypatch.setattr("nearer.cluster.patience.Patience.pauses", lambda _: iter([0.0] * 9))
    return [str(JOB)]


@pytest.mark.parametrize(
    ("prepare", "code", "words"),
    [
        (lambda t, m, c: [str(t / "gone.yaml")], 2, ["no settings file", "gone.yaml"]),
        (lambda t, m, c: settings_file(t), 2, ["says no command", "command: train reranker"]),
        (lambda t, m, c: [str(JOB), "--set", "train.reranker.epoch=3"], 2, ["unknown key", "did you mean epochs?"]),
        (lambda t, m, c: [str(JOB), "--set", "pod.gpu=3"], 2, ["the chart refuses", "gpu"]),
        (lambda t, m, c: [str(JOB), "--set", "settings.artifacts=./out"], 2, ["gone when the pod is gone"]),
        (lambda t, m, c: [str(JOB), "--name", "Tune_1"], 2, ["'Tune_1' cannot name a run", "lower-case"]),
        (lambda t, m, c: [str(JOB), "-f", str(t / "more.yaml")], 2, ["more.yaml"]),
        (lambda t, m, c: no_helm(t, m), 2, ["helm is not on the PATH", "https://helm.sh"]),
        (lambda t, m, c: no_package(m), 2, ["`kubernetes` is not installed", "pip install 'nearer[cluster]'"]),
        (lambda t, m, c: no_cluster(t, m), 2, ["no cluster is configured", "KUBECONFIG"]),
        (lambda t, m, c: broken(t, m), 2, ["the kubeconfig cannot be used", "broken"]),
        (lambda t, m, c: [str(JOB), "--context", "prod"], 2, ["no context 'prod'", "known contexts: double"]),
        (nobody_there, 69, ["the cluster is out of reach", "kubeconfig's address"]),
        (lambda t, m, c: [], 2, ["Missing argument"]),
    ],
    ids=["no file", "settings file", "misspelled setting", "misspelled value", "artifacts on the pod", "bad name",
         "no values file", "no helm", "no package", "no cluster", "broken kubeconfig", "no context", "nobody there",
         "nothing"],
)  # fmt: skip
def test_what_goes_wrong_before_anything_is_made(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Path, pytest.MonkeyPatch, Case], list[str]],
    code: int,
    words: list[str],
) -> None:
    """What, where, the rule, the way out; the exit code of the table."""
    arguments = prepare(tmp_path, monkeypatch, case)
    assert run(["submit", *arguments]) == code
    err = case.capsys.readouterr().err
    for each in words:
        assert each in err
    assert case.api.objects == {}


def test_all_mistakes_of_the_settings_are_told_at_once(case: Case, tmp_path: Path) -> None:
    """Of the job file and of what lies over it, each with its own place."""
    over = tmp_path / "over.yaml"
    over.write_text("settings:\n  train:\n    reranker:\n      batch_size: 0\n", encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        case.session("train.reranker.epoch=3", values=(over,)).dry_run()
    text = str(raised.value)
    assert f"{over}:4" in text
    assert "unknown key train.reranker.epoch" in text


def test_words_that_look_like_numbers_stay_words(case: Case, tmp_path: Path) -> None:
    """A commit's hash as the image's tag, a number as a number, a list as a list."""
    over = tmp_path / "over.yaml"
    over.write_text('image: {tag: "12345e7"}\n', encoding="utf-8")
    submitted(case, "train.reranker.epochs=0.5", "secrets.envFrom=[a, b]", values=(over,))
    job = one(case.api, "jobs")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "nearer:12345e7"
    assert container["envFrom"] == [{"secretRef": {"name": "a"}}, {"secretRef": {"name": "b"}}]
    assert "epochs: 0.5" in one(case.api, "configmaps")["data"]["settings.yaml"]


def test_the_environment_is_no_part_of_the_run(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod does not see it, so it does not change the check either; and it is said."""
    monkeypatch.setenv("NEARER_TRAIN__RERANKER__EPOCHS", "many")
    code, _, err = submitted(case)
    assert code == 0
    assert "NEARER_TRAIN__RERANKER__EPOCHS is set here, and is no part of the run" in err
