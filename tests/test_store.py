"""A store is a folder that all machines reach: the same on a disk, in memory and by S3's protocol."""

import threading
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from nas.settings import Settings
from nas.store import Store, StoreError

LARGE = 12 * 2**20  # in S3 a file of several parts


@pytest.fixture(params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "file":
        return Store(f"file://{tmp_path}/shared/nas")
    if request.param == "s3":
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
    return Store(f"{request.param}://shared/{uuid.uuid4().hex}")


def test_what_was_put_is_there(store: Store) -> None:
    store.put("a/one", b"1")
    store.put("a/two", b"2")
    store.put("a/two", b"another")
    assert (store.get("a/one"), store.get("a/two"), store.get_all(["a/two", "a/one"])) == (
        b"1",
        b"another",
        [b"another", b"1"],
    )
    assert store.names("a") == ["one", "two"] and store.has("a/one")
    store.remove("a/one")
    store.remove("a/one")
    assert store.names("a") == ["two"] and not store.has("a/one")


def test_what_is_not_there_is_nothing(store: Store) -> None:
    assert store.get("a/b") is None and store.names("a") == [] and not store.has("a/b")
    with pytest.raises(StoreError, match="lacks"):
        store.get_all(["a/b"])


def test_a_name_is_created_once(store: Store) -> None:
    assert store.create("a/0", b"first")
    assert not store.create("a/0", b"second") and store.get("a/0") == b"first"
    assert store.create("a/0", b"first"), "the answer to an earlier attempt may have been lost"
    assert store.names("a") == ["0"]


def test_of_several_that_create_a_name_one_has(store: Store) -> None:
    if store.url.startswith("memory"):
        pytest.skip("that of one process, for tests: it looks first and writes then")
    barrier, made = threading.Barrier(8), []

    def create(number: int) -> None:
        barrier.wait()
        if store.create("claimed", b"%d" % number):
            made.append(b"%d" % number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [store.get("claimed")]


def test_files_of_any_size(store: Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * (LARGE // 256)
    (tmp_path / "large").write_bytes(content)
    store.upload(tmp_path / "large", "deep/er/large")
    assert store.download("deep/er/large", tmp_path / "back") and (tmp_path / "back").read_bytes() == content
    assert not store.download("deep/er/none", tmp_path / "none")
    assert store.names("deep/er") == ["large"]


class Flaky(MemoryFileSystem):
    """Fails as often as it is told to."""

    protocol = "flaky"
    cachable = False
    failures: list[Exception] = []  # noqa: RUF012

    def cat_file(self, path: str, *arguments: object, **options: object) -> bytes:
        if self.failures:
            raise self.failures.pop()
        return b"found"


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Store:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr("nas.store._LONGEST_WAIT", 0.01)
    return Store("flaky://store")


def test_what_may_pass_is_tried_again(flaky: Store) -> None:
    Flaky.failures = [OSError("reset by peer"), TimeoutError("slow")]
    assert flaky.get("a") == b"found"
    Flaky.failures = [OSError("reset by\npeer")] * 9
    with pytest.raises(StoreError, match=r"^store=flaky://store can't be read: reset by peer$"):
        flaky.get("a")


def test_credentials_that_are_refused_are_not_tried_again(flaky: Store) -> None:
    Flaky.failures = [PermissionError("Forbidden")] * 2
    with pytest.raises(StoreError, match=r"^store=flaky://store refuses the credentials, .*\(Forbidden\): set them in"):
        flaky.get("a")
    assert len(Flaky.failures) == 1


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("adl://a/b", r"^store=adl://a/b needs adlfs: pip install adlfs$"),
        ("nope://a/b", r"^store=nope://a/b can't be used: Protocol not known: nope$"),
    ],
)
def test_a_store_that_nothing_here_reaches(url: str, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence):
        Store(url)


def test_a_bucket_that_is_not_there(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        StoreError, match=r"^store=s3://no-such-bucket/nas is not there: make the bucket or the folder "
    ):
        Store("s3://no-such-bucket/nas").put("a", b"")


def test_without_credentials(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # which has those of earlier tests
    for name in s3:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(StoreError, match=r"^store=s3://shared/nas refuses the credentials, or has none "):
        Store("s3://shared/nas").put("a", b"")


@pytest.mark.parametrize(
    "url", ["s3://AKIA:secret@bucket/nas", "s3://token@bucket", "gs://bucket/nas?token=secret", "https://h/x#secret"]
)
@pytest.mark.parametrize("key", ["store", "resume"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(key: str, url: str) -> None:
    with pytest.raises(ValueError, match=f"^{key} has a user, a password or a key in it") as refused:
        Settings(**{key: url})
    assert "secret" not in str(refused.value) and "token@" not in str(refused.value)


@pytest.mark.parametrize("url", ["/shared/nas", "bucket/nas", "s3://", "s3:bucket", "file:///"])
def test_a_store_is_a_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"must be a URL: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or file:///FOLDER$"):
        Settings(store=url)
    assert Settings(store="file:///shared/nas").store == "file:///shared/nas"
