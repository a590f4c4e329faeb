"""What the S3 store does beyond the contract: its cache, users' own objects, several roots, options."""

from __future__ import annotations

import hashlib
import os

import pytest
from store_work import files_below, publish

from nearer.errors import ArtifactMissing, InputError, Interrupted, NoPermission
from nearer.models.source import find_model, model_state
from nearer.store import S3Buckets, S3Options, open_store
from nearer.store.s3.space import S3Space
from nearer.store.s3.tags import combined_tag
from nearer.store.s3.transfer import Transfer
from nearer.store.s3.wire import Wire, split
from nearer.testing import tiny_embedder

FILES = {"model.bin": b"weights" * 100, "sub/config.json": b"{}", "빈 파일 #1?.txt": b""}


@pytest.fixture
def make(s3_root, s3_endpoint, tmp_path):
    """Opens the store of this test on a machine of that name."""

    def opened(machine="a", *, root=s3_root, overwrite=False, **options):
        buckets = S3Buckets(default=S3Options(endpoint=s3_endpoint, **options))
        return open_store(root, overwrite=overwrite, buckets=buckets, cache_directory=tmp_path / machine)

    return opened


@pytest.fixture
def downloads(monkeypatch):
    """The keys of files that were downloaded."""
    seen, original, original_small = [], Transfer.download, Transfer.download_small

    def counted(self, bucket, key, *args, **kwargs):
        seen.append(key.rpartition("/")[2])
        return original(self, bucket, key, *args, **kwargs)

    def counted_small(self, bucket, wanted):
        for each, sha256 in original_small(self, bucket, wanted):
            seen.append(each.key.rpartition("/")[2])
            yield each, sha256

    monkeypatch.setattr(Transfer, "download", counted)
    monkeypatch.setattr(Transfer, "download_small", counted_small)
    return seen


def test_nothing_is_downloaded_twice_on_a_machine(make, downloads):
    """What was published or opened on a machine is opened there again without a download; elsewhere each file once."""
    publish(make("a"), "models/m", FILES)
    assert files_below(make("a").open("models/m").path) == FILES
    assert downloads == []
    for _ in range(2):
        assert files_below(make("b").open("models/m").path) == FILES
    assert sorted(downloads) == sorted(name.rpartition("/")[2] for name in FILES)
    publish(make("b"), "models/copy", FILES, "f2")
    assert files_below(make("b").open("models/copy").path) == FILES
    assert len(downloads) == len(FILES)


def test_users_own_objects_are_read(make, s3_root, s3_endpoint, downloads):
    """An object or a prefix comes as a local path, again only when it changed; nothing there is an error in words."""
    space = S3Space(S3Buckets(default=S3Options(endpoint=s3_endpoint)))
    space.put(f"{s3_root}/data/documents.jsonl", b"{}")
    space.put(f"{s3_root}/data/more/한글.txt", "문서".encode())
    space.put(f"{s3_root}/data/", b"")  # a console's folder
    store = make()
    assert store.raw("data/documents.jsonl").read_bytes() == b"{}"
    assert store.raw("data/documents.jsonl").name == "documents.jsonl"
    assert files_below(store.raw("data")) == {"documents.jsonl": b"{}", "more/한글.txt": "문서".encode()}
    seen = len(downloads)
    assert files_below(make().raw(f"{s3_root}/data"))
    assert len(downloads) == seen
    space.put(f"{s3_root}/data/documents.jsonl", b"{!}")
    assert make().raw("data/documents.jsonl").read_bytes() == b"{!}"
    with pytest.raises(ArtifactMissing, match=r"data/nothing\.jsonl does not exist"):
        store.raw("data/nothing.jsonl")


def test_several_roots_in_one_run(make, s3_root, tmp_path):
    """With a root in S3 a literal path is local, and with a local root s3://… is in S3."""
    in_s3, local = make(), make(root=str(tmp_path / "local"))
    publish(in_s3, f"{tmp_path}/out/m", FILES)
    publish(local, f"{s3_root}/elsewhere/m", FILES)
    publish(local, "here/m", FILES)
    assert files_below(tmp_path / "out/m") == files_below(tmp_path / "local/here/m") == FILES
    assert files_below(in_s3.open("elsewhere/m").path) == FILES
    assert local.resolve("here/m") == f"{tmp_path}/local/here/m"
    assert in_s3.resolve("elsewhere/m") == f"{s3_root}/elsewhere/m"
    assert in_s3.verify("elsewhere/m") == local.verify("here/m") == ()


def test_a_plain_model_directory_in_s3_is_a_base_model(make, s3_root, s3_endpoint, tmp_path):
    """A prefix with a checkpoint that nearer did not write is found, fetched and named by its content."""
    tiny_embedder(tmp_path / "tiny", architecture="bert")
    space = S3Space(S3Buckets(default=S3Options(endpoint=s3_endpoint)))
    for path in (tmp_path / "tiny").rglob("*"):
        if path.is_file():
            space.upload(path, f"{s3_root}/base/{path.relative_to(tmp_path / 'tiny').as_posix()}")
    store = make()
    assert model_state("base", store=store) == "there"
    assert model_state(f"{s3_root}/none", store=store) == "missing"
    found, direct = find_model("base", store=store), find_model(str(tmp_path / "tiny"), store=store)
    assert (found.origin, found.fingerprint) == ("directory", direct.fingerprint)
    assert files_below(found.path) == files_below(tmp_path / "tiny")


def test_a_bucket_may_have_options_of_its_own(s3_endpoint, s3_root):
    """Options by bucket are used for that bucket alone."""
    bucket = split(s3_root)[0]
    wire = Wire(
        S3Buckets(default=S3Options(endpoint="http://127.0.0.1:9"), buckets={bucket: S3Options(endpoint=s3_endpoint)})
    )
    assert wire.client(bucket).meta.endpoint_url == s3_endpoint
    assert wire.client("other").meta.endpoint_url == "http://127.0.0.1:9"


def test_what_is_written_is_encrypted_as_the_options_say(make, s3_root, s3_endpoint):
    """Every object of an artifact, copies and parts included, has the server-side encryption of the options."""
    publish(make(encryption="aws:kms", kms_key_id="key-1"), "m", {**FILES, "big.bin": os.urandom(9 << 20)})
    wire = Wire(S3Buckets(default=S3Options(endpoint=s3_endpoint)))
    bucket, prefix = split(f"{s3_root}/m")
    for name in (*FILES, "big.bin", "manifest.json"):
        head = wire.call("HeadObject", bucket, f"{prefix}/{name}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "key-1")
    assert files_below(make("b").open("m").path)["model.bin"] == FILES["model.bin"]


@pytest.mark.parametrize(
    ("size", "part"), [(1, 8 << 20), (80_000 << 20, 8 << 20), ((80_000 << 20) + 1, 9 << 20), (5 << 40, 525 << 20)]
)
def test_no_file_has_more_parts_than_s3_allows(size, part):
    """Parts grow with the file, in whole mebibytes, so that 10,000 suffice."""
    assert Transfer(Wire(S3Buckets())).part_bytes("bucket", size) == part
    assert -(-size // part) <= 10_000


def test_the_tag_of_a_multipart_object_is_known_beforehand(make, s3_root, s3_endpoint, tmp_path):
    """The ETag that the store gives to an object in parts is the one that is computed from the file."""
    data = os.urandom((5 << 20) + 7)
    (tmp_path / "file").write_bytes(data)
    space = S3Space(S3Buckets(default=S3Options(endpoint=s3_endpoint, part_bytes=5 << 20)))
    space.upload(tmp_path / "file", f"{s3_root}/file")
    parts = [hashlib.md5(data[: 5 << 20]).hexdigest(), hashlib.md5(data[5 << 20 :]).hexdigest()]
    assert space.list(s3_root)["file"].tag == combined_tag(parts)


def test_a_ca_bundle_that_is_not_there_is_said(make):
    """A wrong path to certificates is an error of the settings, before any request."""
    with pytest.raises(InputError, match=r"the CA bundle /nowhere\.pem is not there"):
        make(ca_bundle="/nowhere.pem").manifest("m")


def test_a_reader_without_write_permission_waits_for_a_publication(make, s3_root, monkeypatch):
    """Who may only read is told that the artifact is being replaced; a publisher is told the missing permission."""
    publish(make(), "m", FILES)
    monkeypatch.setattr(Transfer, "copy", _no_permission)
    with pytest.raises(NoPermission):
        publish(make(overwrite=True), "m", {"new": b"n"}, "f2")
    with pytest.raises(Interrupted, match=r"being replaced[\s\S]*these credentials may not finish it"):
        make("reader").open("m")
    monkeypatch.undo()
    assert files_below(make("reader").open("m").path) == {"new": b"n"}


def _no_permission(*_args, **_kwargs):
    raise NoPermission("no permission for s3:GetObject and s3:PutObject")
