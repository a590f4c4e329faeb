"""What every store does, wherever its bytes live."""

from __future__ import annotations

import errno
import itertools
import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_work import content, job, publish, write

from nearer.errors import ArtifactCorrupt, ArtifactExists, ArtifactMissing, InputError, Interrupted, from_os_error
from nearer.progress import Silent
from nearer.store import Built, InputEntry, Manifest, Outcome, S3Buckets, S3Options, produce, show
from nearer.store.cache import FileCache
from nearer.store.disk import LocalSpace
from nearer.store.local import LocalStore
from nearer.store.s3.space import S3Space
from nearer.store.s3.store import S3Store

OLD = {"model.bin": b"old " * 100, "sub/config.json": b"{}", "only-old.txt": b"o", "name/inside.txt": b"a directory"}
NEW = {"model.bin": b"new!" * 100, "sub/config.json": b"[]", "only-new.txt": b"n", "name": b"a file"}


class WithoutLocks(LocalSpace):
    """As on S3: whoever asks for a lock gets it."""

    @contextmanager
    def alone(self, key):
        yield True


class WithoutLinks(LocalSpace):
    """As on file systems that know no hard links."""

    @contextmanager
    def _no_links(self):
        kept = os.link
        os.link = _refuse_link
        try:
            yield
        finally:
            os.link = kept

    def create(self, key, data):
        with self._no_links():
            return super().create(key, data)

    def upload(self, source, key, remains=()):
        with self._no_links():
            super().upload(source, key, remains)

    def copy(self, source, key, size=0):
        with self._no_links():
            super().copy(source, key, size)


def _refuse_link(*_args, **_kwargs):
    raise OSError(errno.EPERM, "Operation not permitted")


LOCAL_SPACES = {"local": LocalSpace, "local-without-locks": WithoutLocks, "local-without-links": WithoutLinks}


@pytest.fixture(params=[*LOCAL_SPACES, "s3", "s3-boto3"])
def make(request, tmp_path):
    """A function that opens the store of this test, with or without overwriting."""
    if request.param.startswith("s3"):
        root, endpoint = request.getfixturevalue("s3_root"), request.getfixturevalue("s3_endpoint")
        small = request.param.partition("-")[2] or "auto"
        space = S3Space(S3Buckets(default=S3Options(endpoint=endpoint, small_files=small)))
        numbers = itertools.count()
        return lambda *, overwrite=False: S3Store(  # each on another machine, as far as files are concerned
            root,
            space=space,
            cache=FileCache(tmp_path / f"cache-{next(numbers)}", limit_bytes=1 << 30, workers=4),
            local=LocalStore(str(tmp_path / "machine")),
            overwrite=overwrite,
        )
    root, space = tmp_path / "root", LOCAL_SPACES[request.param]()
    return lambda *, overwrite=False: LocalStore(str(root), overwrite=overwrite, space=space)


@pytest.fixture
def store(make):
    return make()


def put(store, address, files):
    """Write as somebody else would, past the store."""
    for name, data in files.items():
        store.space.put(f"{store.resolve(address)}/{name}", data)


def held(store, address=None):
    """All files below the address, or in the whole store."""
    top = store.resolve(address or store.root)
    return {name: store.space.read(f"{top}/{name}") for name in store.space.list(top)}


def is_s3(store):
    return isinstance(store, S3Store)


def test_what_was_published_is_what_is_opened(store):
    """An artifact's files come back as they were, and its manifest names size, sha256, attempt and environment."""
    published = publish(store, "models/m", OLD, "f1", metrics={"R@10": 0.5})
    artifact = store.open("models/m", kind="embedder")
    assert content(store, "models/m") == OLD
    assert artifact.manifest == published == store.manifest("models/m")
    assert {entry.path: entry.size for entry in published.files} == {name: len(data) for name, data in OLD.items()}
    assert published.attempt
    assert published.created_at
    assert "python" in published.environment


@pytest.mark.parametrize("bad", ["link-to-folder", "manifest.json", "fifo", b"\xff\xfe.txt", "dangling"])
def test_what_cannot_be_an_artifacts_file_is_refused(store, tmp_path, bad):
    """Links to directories, the manifest's own name, special files and undecodable names end in words."""
    source = tmp_path / "source"
    source.mkdir()
    if bad == "link-to-folder":
        (source / bad).symlink_to(tmp_path)
    elif bad == "fifo":
        os.mkfifo(source / bad)
    elif bad == "dangling":
        (source / bad).symlink_to(tmp_path / "nowhere")
    else:
        Path(source, os.fsdecode(bad)).write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be part of an artifact"):
        store.publish("m", source, Manifest(kind="embedder", name="m", fingerprint="f1"))
    assert store.manifest("m") is None


def test_nothing_of_publishing_is_left_behind(store):
    """After publishing, the area holds the claim and nothing else."""
    publish(store, "m", OLD, "f1")
    [left] = held(store, ".nearer")
    assert left.startswith("claims/")
    assert store.gc(remove=False) == ()


def test_same_fingerprint_is_already_done(store):
    """Publishing the same work again keeps the artifact that is there."""
    first = publish(store, "m", OLD, "f1")
    assert publish(store, "m", NEW, "f1") == first
    assert content(store, "m") == OLD


def test_another_fingerprint_is_refused_naming_both(store):
    """Without --overwrite an artifact stays, and the error names both fingerprints and what differs."""
    publish(
        store,
        "m",
        OLD,
        "f-one",
        settings={"epochs": 1, "seed": 3},
        inputs={"dataset": InputEntry(address="d", fingerprint="x")},
    )
    with pytest.raises(ArtifactExists) as caught:
        publish(
            store,
            "m",
            NEW,
            "f-two",
            settings={"epochs": 2, "seed": 3},
            inputs={"dataset": InputEntry(address="d", fingerprint="y")},
        )
    for part in ("f-one", "f-two", "epochs was 1, is 2", "another dataset", "--overwrite", store.resolve("m")):
        assert part in str(caught.value)
    assert "seed" not in str(caught.value)
    assert content(store, "m") == OLD


def test_overwrite_replaces_every_file(make):
    """With --overwrite the new artifact stands there, and no file of the old one."""
    publish(make(), "m", OLD, "f1")
    assert publish(make(overwrite=True), "m", NEW, "f2").fingerprint == "f2"
    assert content(make(), "m") == NEW
    publish(make(overwrite=True), "m", OLD, "f1")
    assert content(make(), "m") == OLD


def test_an_artifact_that_was_removed_by_hand_can_be_made_again(make):
    """`rm -r` of an artifact frees its address, although its claim stays."""
    publish(make(), "m", OLD, "f1")
    make().space.clear(make().resolve("m"))
    assert make().manifest("m") is None
    publish(make(), "m", NEW, "f2")
    assert content(make(), "m") == NEW


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("with_manifest", [False, True])
def test_a_directory_that_is_not_ours_is_never_overwritten(make, overwrite, with_manifest):
    """Files that nearer did not write stay as they are, also with --overwrite, also beside a web app's manifest."""
    store = make(overwrite=overwrite)
    theirs = {"thesis.tex": b"ten years"} | ({"manifest.json": b'{"name": "a web app"}'} if with_manifest else {})
    put(store, "m", theirs)
    with pytest.raises(InputError, match=r"holds (thesis.tex|manifest.json)"):
        publish(store, "m", NEW, "f2")
    assert held(store, "m") == theirs


REFUSED = [
    ("{root}", "artifacts root"),
    (".nearer/staging", ".nearer"),
    ("a/.nearer/b", ".nearer"),
    ("", "empty"),
    ("a/../../b", "leaves"),
    ("m\0n", "NUL"),
]
REFUSED_LOCALLY = [
    (".", "artifacts root"),
    ("{root}/..", "artifacts root"),
    ("/", "artifacts root"),
    ("s3://bucket/m", "in S3"),
]
REFUSED_IN_S3 = [("{root}/..", "means nothing"), ("s3://bucket", "artifacts root"), ("/m", "not in S3")]


def test_addresses_that_no_artifact_may_have(make, tmp_path, monkeypatch):
    """The root, what holds it, nearer's own area and nonsense are refused with words, before anything is written."""
    store = make(overwrite=True)
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    for address, words in REFUSED + (REFUSED_IN_S3 if is_s3(store) else REFUSED_LOCALLY):
        with pytest.raises(InputError, match=words):
            store.publish(address.format(root=store.root), tmp_path, Manifest(kind="k", name="n", fingerprint="f"))
    assert held(store) == {}


def test_nothing_is_written_into_an_artifact(make):
    """An address or pointer inside an artifact is refused, and so is one that holds artifacts."""
    store = make(overwrite=True)
    publish(store, "models/m", OLD, "f1")
    with pytest.raises(InputError, match="inside another artifact"):
        publish(store, "models/m/onnx", NEW, "f2")
    with pytest.raises(InputError, match="inside another artifact"):
        store.write_text("models/m/alias", "x")
    with pytest.raises(InputError, match="is not an artifact and holds m/"):
        publish(store, "models", NEW, "f2")
    assert content(store, "models/m") == OLD


def test_missing_artifacts_are_told_from_unfinished_directories(store):
    """`open` says whether nothing is there, or files without a manifest."""
    with pytest.raises(ArtifactMissing, match="no artifact at nothing\n") as caught:
        store.open("nothing")
    assert store.resolve("nothing") in str(caught.value)
    put(store, "half", {"a": b"1"})
    with pytest.raises(ArtifactMissing, match=r"no manifest\.json"):
        store.open("half")


def test_the_wrong_kind_is_refused(store):
    """A reranker is not opened where an embedder is needed."""
    publish(store, "m", OLD, "f1")
    with pytest.raises(InputError, match="'embedder', not 'reranker'"):
        store.open("m", kind="reranker")


@pytest.mark.parametrize("way", ["flip", "truncate", "extend", "remove", "folder", "swap"])
def test_changed_bytes_are_found(make, way):
    """Readers refuse an artifact whose bytes are not those of its manifest, also after they opened it before."""
    store = make()
    publish(store, "m", OLD, "f1")
    data = content(store, "m")["model.bin"]
    store.space.delete(f"{store.resolve('m')}/model.bin")
    if way == "folder":
        put(store, "m/model.bin", {"inside": b"1"})
    elif way != "remove":
        new = {"flip": b"X" + data[1:], "truncate": data[:-1], "extend": data + b"x", "swap": b"new!" * 100}[way]
        put(store, "m", {"model.bin": new})
    with pytest.raises(ArtifactCorrupt, match=r"model\.bin"):
        (make() if is_s3(store) else store).open("m")  # what is cached from S3 is sound whatever happens there
    assert any("model.bin" in problem for problem in store.verify("m"))


def test_verify_lists_strays(store):
    """A file that the manifest does not name is reported by `verify`; a whole artifact gives nothing."""
    publish(store, "m", OLD, "f1")
    assert store.verify("m") == ()
    put(store, "m", {"stray.txt": b"?"})
    assert store.verify("m") == ("stray.txt: not named by the manifest",)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret", "", "a//b", "./a", "manifest.json"])
def test_manifests_that_leave_their_directory_are_refused(store, path):
    """A manifest from somebody else cannot make a reader touch files elsewhere."""
    publish(store, "m", OLD, "f1")
    raw = json.loads(held(store, "m")["manifest.json"])
    raw["files"][0]["path"] = path
    put(store, "m", {"manifest.json": json.dumps(raw).encode()})
    with pytest.raises(ArtifactCorrupt, match="not a manifest that this version reads"):
        store.open("m")


def test_an_unreadable_manifest_is_replaced_with_overwrite_only(make):
    """A torn manifest of ours is an error without, and no obstacle with --overwrite."""
    publish(make(), "m", OLD, "f1")
    put(make(), "m", {"manifest.json": b'{"kind": '})
    for look in (make().manifest, make().open):
        with pytest.raises(ArtifactCorrupt, match="not a manifest"):
            look("m")
    with pytest.raises(ArtifactCorrupt):
        publish(make(), "m", NEW, "f2")
    publish(make(overwrite=True), "m", NEW, "f2")
    assert content(make(), "m") == NEW


def test_user_files_are_found_or_missed_with_words(store):
    """`raw` gives the local path of a user's file; a missing one is named with its full path."""
    put(store, "data", {"documents.jsonl": b"{}"})
    assert store.raw("data/documents.jsonl").read_bytes() == b"{}"
    assert store.raw("data").is_dir()
    with pytest.raises(InputError, match=r"data/nothing\.jsonl does not exist"):
        store.raw("data/nothing.jsonl")


def test_pointers_are_replaced_whole(store):
    """A pointer file is read as it was last written; none there is None."""
    assert store.read_text("indexes/docs/current.alias") is None
    store.write_text("indexes/docs/current.alias", "생성 1\n")
    store.write_text("indexes/docs/current.alias", "생성 2\n")
    assert store.read_text("indexes/docs/current.alias") == "생성 2\n"
    assert set(held(store, "indexes/docs")) == {"current.alias"}


def _fail_in_scratch(store, seen):
    with store.scratch() as directory:
        seen.append(directory)
        write(directory, OLD)
        raise ZeroDivisionError


def test_scratch_is_private_and_removed(store):
    """Each scratch is another empty directory, gone at the end, also after an error."""
    seen = []
    with store.scratch() as first, store.scratch() as second:
        assert first != second
        assert list(first.iterdir()) == []
    with pytest.raises(ZeroDivisionError):
        _fail_in_scratch(store, seen)
    assert not any(path.exists() for path in (first, second, *seen))


def test_caches_have_plain_names(store):
    """A cache is a directory below the area; a name cannot lead elsewhere."""
    assert store.cache("vectors") == store.cache("vectors")
    assert store.cache("vectors").is_dir()
    with pytest.raises(InputError):
        store.cache("../vectors")


def test_work_survives_until_it_is_removed(store):
    """What is in a work area is found again by the same fingerprint, and by no other."""
    with store.work("abc") as work:
        (work.path / "step-1").write_text("x")
    with store.work("abd") as work:
        assert list(work.path.iterdir()) == []
    with store.work("abc") as work:
        assert (work.path / "step-1").read_text() == "x"
        work.remove()
    assert not work.path.exists()


def test_work_that_is_done_is_not_done_again(store):
    """The second `produce` builds nothing and gives the stored outcome: a refused verdict stays refused."""
    builds = []
    refused = Outcome(code=3, reason="nDCG@10 fell")
    first = job(store, "f1", OLD, builds=builds, outcome=refused, metrics={"nDCG@10": 0.4})
    again = job(store, "f1", OLD, builds=builds)
    assert builds == ["f1"]
    assert again == first
    assert again.outcome == refused
    assert again.metrics == {"nDCG@10": 0.4}


def test_produce_asks_before_it_works(make):
    """A place that is taken is refused before the build starts."""
    builds = []
    job(make(), "f1", OLD, builds=builds)
    with pytest.raises(ArtifactExists):
        job(make(), "f22", NEW, builds=builds)
    put(make(), "foreign", {"a": b"1"})
    with pytest.raises(InputError):
        job(make(overwrite=True), "f3", NEW, address="foreign", builds=builds)
    assert builds == ["f1"]
    job(make(overwrite=True), "f22", NEW, builds=builds)
    assert content(make(), "models/m") == NEW


def test_overwrite_makes_a_damaged_artifact_again(make):
    """The same fingerprint with damaged bytes is rebuilt with --overwrite, and a whole one is not."""
    builds = []
    job(make(), "f1", OLD, builds=builds)
    job(make(overwrite=True), "f1", OLD, builds=builds)
    assert builds == ["f1"]
    put(make(), "models/m", {"model.bin": b"damaged"})
    job(make(overwrite=True), "f1", OLD, builds=builds)
    assert builds == ["f1", "f1"]
    assert content(make(), "models/m") == OLD


def test_a_failed_build_leaves_its_work_and_nothing_else(store):
    """After an error in the build the address is free, the scratch gone, and the work area there for the next try."""

    def build(directory, work):
        write(directory, OLD)
        (work.path / "step-1").write_text("x")
        raise RuntimeError("boom")

    fields = {"kind": "k", "name": "n", "address": "m", "fingerprint": "f1", "inputs": {}, "settings": {}}
    with pytest.raises(RuntimeError, match="boom"):
        produce(store, Silent(), build=build, **fields)
    assert store.manifest("m") is None
    assert set(held(store)) == (set() if is_s3(store) else {".nearer/work/f1/step-1"})
    with store.work("f1") as work:
        assert (work.path / "step-1").read_text() == "x"


def test_an_input_replaced_during_the_work_is_noticed(make):
    """Work whose input was overwritten meanwhile is not published: its lineage would lie."""
    publish(make(), "data", OLD, "d1")

    def build(directory, work):
        publish(make(overwrite=True), "data", NEW, "d2")
        return Built()

    with pytest.raises(Interrupted, match="the input dataset was replaced"):
        produce(
            make(),
            Silent(),
            kind="k",
            name="n",
            address="m",
            fingerprint="f1",
            inputs={"dataset": InputEntry(address="data", fingerprint="d1")},
            settings={},
            build=build,
        )
    assert make().manifest("m") is None


def test_dry_run_foresees_what_admit_says(make):
    """`foresee` tells the five states apart and touches nothing."""
    store = make()
    assert store.foresee("m", "f1") == "would be made"
    assert store.foresee("m", None) == "would be made"
    assert held(store) == {}
    publish(store, "m", OLD, "f1", outcome=Outcome(code=3, reason="verdict: worse"))
    put(store, "foreign", {"a": b"1"})
    assert store.foresee("m", "f1") == "already done (verdict: worse)"
    assert store.foresee("m", "f2").startswith("refused: another artifact stands at")
    assert make(overwrite=True).foresee("m", "f2") == "would replace the artifact that is there"
    assert "shows when the inputs are made" in store.foresee("m", None)
    assert store.foresee("foreign", None).startswith("refused:")
    assert store.foresee("m/inside", "f1").startswith("refused:")


def test_lineage_leads_up_to_the_documents(make):
    """`show` draws what an artifact was made from, and says when an input is not the one of that time any more."""
    store = make()
    job(
        store,
        "d" * 64,
        OLD,
        address="datasets/d",
        inputs={"documents": InputEntry(address="data/documents.jsonl", fingerprint="a" * 64)},
    )
    dataset = InputEntry(address="datasets/d", fingerprint="d" * 64)
    inputs = {"dataset": dataset, "base_model": InputEntry(address="intfloat/e5", fingerprint="c" * 40)}
    job(store, "e" * 64, NEW, address="models/e", inputs=inputs, metrics={"nDCG@10": 0.5})
    text = show(store, "models/e")
    assert "metric       nDCG@10 = 0.5" in text
    assert text.split("\n\n")[1].splitlines() == [
        "models/e  embedder eeeeeeeeeeee",
        "├── dataset: datasets/d  embedder dddddddddddd",
        "│   └── documents: data/documents.jsonl  aaaaaaaaaaaa",
        "└── base_model: intfloat/e5  cccccccccccc",
    ]
    job(make(overwrite=True), "b" * 64, OLD, address="datasets/d")
    assert "dataset: datasets/d  embedder dddddddddddd  (replaced since: now bbbbbbbbbbbb)" in show(store, "models/e")


class Failing:
    """A space whose n-th primitive finds the disk full."""

    def __init__(self, inner, at):
        self.inner, self.left = inner, at

    def __getattr__(self, name):
        found = getattr(self.inner, name)
        if name not in ("create", "put", "upload", "copy"):
            return found

        def fail_sometimes(*args):
            self.left -= 1
            if self.left == 0:
                raise OSError(errno.ENOSPC, "No space left on device", str(args[-1]))
            return found(*args)

        return fail_sometimes


def _publish_on_a_full_disk(store, *, at):
    store.space = Failing(store.space, at)
    try:
        publish(store, "m", NEW, "f2")
    except OSError as error:
        return error
    return None


def test_a_full_disk_at_every_write_leaves_the_old_or_completes_later(make):
    """ENOSPC surfaces as OSError with words; until the claim the old artifact stands, afterwards a rerun completes."""
    publish(make(), "other", OLD, "f0")
    publish(make(), "m", OLD, "f1")
    failures = 0
    while error := _publish_on_a_full_disk(make(overwrite=True), at=failures + 1):
        failures += 1
        assert "no space left" in str(from_os_error(error))
        assert held(make(), ".nearer/scratch") == {}
        if make().manifest("m").fingerprint == "f1":
            assert held(make(), ".nearer/staging") == {}
            assert content(make(), "m") == OLD
        else:
            assert content(make(), "m") == NEW
            publish(make(overwrite=True), "m", OLD, "f1")
    assert failures == 2 * len(NEW) + 3  # upload and copy of each file and of the manifest, and the claim
    assert content(make(), "m") == NEW
    assert content(make(), "other") == OLD
