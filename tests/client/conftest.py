"""Fixtures of the client's tests: a fake broker, an app that talks to it, and no trace of either after."""

import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chervil import Chervil, current, watching
from chervil.client import Client
from chervil.tls_files import KEYS
from tests.client.fakes import FakeBroker
from tests.client.relay import Authority, Relay


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker, token or app of the machine, or of another test, is found."""
    for name in ("CHERVIL_BROKER_URL", "CHERVIL_TOKEN", "CHERVIL_TOKEN_FILE", *KEYS.values()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(current, "_current", None)
    monkeypatch.setattr(current, "_default", None)
    monkeypatch.setattr(current, "shared", [])
    monkeypatch.setattr(current, "finalized", type(current.finalized)())


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FakeBroker]:
    fake = FakeBroker(tmp_path / "broker.sock")
    yield fake
    fake.close()


@pytest.fixture
def client(broker: FakeBroker) -> Iterator[Client]:
    made = Client(broker.found)
    yield made
    made.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def relayed(broker: FakeBroker) -> Iterator[Callable[..., Relay]]:
    """Puts TLS before the broker: `relayed(context)`."""
    relays: list[Relay] = []

    def relay(context: ssl.SSLContext) -> Relay:
        relays.append(Relay(broker.url, context))
        return relays[-1]

    yield relay
    for each in relays:
        each.close()


@pytest.fixture
def leisurely(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests with a short timeout whose broker answers: a busy machine may take its time for that."""
    monkeypatch.setattr(watching, "FIRST_ANSWER_SECONDS", 10.0)
    monkeypatch.setattr(watching, "LAST_ANSWER_SECONDS", 10.0)


@pytest.fixture
def app(broker: FakeBroker) -> Iterator[Chervil]:
    made = Chervil("tests", broker=str(broker.url))
    yield made
    made.close()


@pytest.fixture
def meanwhile() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs something beside the test; what it raises fails the test."""
    threads: list[threading.Thread] = []
    errors: list[BaseException] = []

    def start(run: Callable[[], None]) -> None:
        def kept() -> None:
            try:
                run()
            except BaseException as error:
                errors.append(error)

        threads.append(threading.Thread(target=kept))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(10)
    assert errors == []
