"""Shared by the tests of one worker: one warm box, one small corpus."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from common import SPACE
from jaxtyping import install_import_hook
from playwright.sync_api import Browser, sync_playwright

from nas.sandbox import Box
from nas.settings import CorpusSettings
from nas.tasks.corpus import Corpus, prepare
from nas.tracking.store import connect
from nas.trial import PRELOAD

# Shapes in signatures are checked wherever these run in the tests' own process.
install_import_hook(["nas.model", "search_spaces.linear_attention.ops"], "beartype.beartype")


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """A zygote with the gate and the training imported, as a worker has it."""
    box = Box((*PRELOAD, *sorted(SPACE.allowed_imports)))
    yield box
    box.close()


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text whose next byte can be learned in a few steps."""
    folder = tmp_path_factory.mktemp("text")
    for number in range(60):
        words = [f"line {line} of file {number}: the state keeps what the keys wrote\n" for line in range(200)]
        (folder / f"{number:02d}.txt").write_text("".join(words))
    return folder


@pytest.fixture(scope="session")
def text(text_folder: Path) -> list[str]:
    """The same as overrides of a command line."""
    return ["corpus=text", f"path={text_folder}"]


@pytest.fixture(scope="session")
def corpus(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The same, prepared."""
    return prepare(CorpusSettings(kind="text", path=str(text_folder)), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables and nothing in it: making them takes longer than a test."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sentence = "there is no Chromium here: apt-get install chromium"
        pytest.fail(sentence) if "CI" in os.environ else pytest.skip(sentence)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])  # root has no other way
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """A server that speaks S3, with a bucket `shared`: the environment in which it is reached."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "of-the-tests", "AWS_SECRET_ACCESS_KEY": "of-the-tests", "AWS_REGION": "us-east-1"}
    there = {**keys, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in there.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="shared")
    yield there
    server.stop()


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For subprocesses that run the command line."""
    return {**os.environ, "COLUMNS": "120"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole searches first: they take minutes, and the other worker does the rest meanwhile."""
    whole = tuple(f"test{of}_end_to_end.py" for of in ("", "_llm", "_store", "_submit"))
    items.sort(key=lambda item: item.path.name not in whole)
