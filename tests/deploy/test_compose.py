"""compose.yaml, as far as text goes, and by a real parser where there is one."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chervil.address import BrokerURL
from chervil.cli.common import ENVIRONMENT
from tests.deploy import test_dockerfile
from tests.deploy.commandlines import DEPLOY, ROOT, mistakes

PATH = DEPLOY / "compose.yaml"
TEXT = PATH.read_text()


def service(name: str) -> str:
    """The lines of a service."""
    found = re.search(rf"^  {name}:\n(.*?)(?=^ {{0,2}}\w)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def command(name: str) -> list[str]:
    """The words of a service's command, in either notation."""
    text = service(name)
    if inline := re.search(r"^    command: (\[.*\])$", text, re.MULTILINE):
        return json.loads(inline[1])
    block = re.search(r"^    command:\n((?:      - .*\n)+)", text, re.MULTILINE)
    assert block is not None
    return [line.removeprefix("      - ") for line in block[1].splitlines()]


def value(name: str, key: str) -> str:
    found = re.search(rf"^ +{key}: (.*)$", service(name), re.MULTILINE)
    assert found is not None, key
    return found[1]


def secrets() -> dict[str, str]:
    """Name -> file of every secret."""
    return dict(re.findall(r"^  (\w+):\n    file: (\S+)$", TEXT, re.MULTILINE))


@pytest.mark.parametrize("name", ["broker", "worker"])
def test_what_is_run_is_there(name):
    assert command(name)[0] == name
    assert mistakes(command(name)) == []


@pytest.mark.parametrize("name", ["broker", "worker"])
def test_every_secret_that_is_used_is_defined_and_given_to_that_service(name):
    used = set(re.findall(r"/run/secrets/(\w+)", service(name)))
    assert used == set(value(name, "secrets").strip("[]").split(", "))
    assert used <= set(secrets())


def test_every_secrets_file_is_made_in_the_document():
    text = (ROOT / "docs" / "deployment.md").read_text()
    for file in secrets().values():
        assert Path(file).name in text


def test_a_worker_checks_the_broker_by_the_name_of_its_service():
    url = BrokerURL.parse(value("worker", "CHERVIL_BROKER_URL"))
    assert (url.scheme, url.host, url.token) == ("chervils", "broker", None)
    assert "--bind=0.0.0.0:2437" in command("broker")
    assert url.port == 2437


def test_the_brokers_command_is_the_images_own():
    words = [word for part in command("broker") for word in part.split("=", 1)]
    assert words == json.loads(test_dockerfile.only("CMD"))


def test_the_health_check_finds_the_broker():
    image = BrokerURL.parse(test_dockerfile.environment()["CHERVIL_BROKER_URL"])
    assert f"--unix={image.path}" in command("broker")
    assert f'"{Path(str(image.path)).parent}:uid=2437,gid=2437,mode=0700"' in value("broker", "tmpfs")
    assert "condition: service_healthy" in service("worker")


def test_only_names_that_are_read_are_set():
    names = set(re.findall(r"^      (CHERVIL_\w+):", TEXT, re.MULTILINE))
    assert len(names) == 4
    assert names <= set(ENVIRONMENT)


def test_data_is_in_a_volume_and_the_rest_is_read_only():
    assert f'"data:{test_dockerfile.only("VOLUME")}"' in value("broker", "volumes")
    assert "  read_only: true\n" in TEXT
    assert TEXT.count("<<: *hardened") == 2


def test_there_are_two_workers_and_they_have_time_to_finish():
    assert value("worker", "replicas") == "2"
    assert value("worker", "stop_grace_period") == "5m"


def test_it_is_valid_yaml():
    yaml = pytest.importorskip("yaml", reason="there is no YAML parser here")
    assert set(yaml.safe_load(TEXT)["services"]) == {"broker", "worker"}


def test_compose_accepts_it():
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no docker compose here")
    ran = subprocess.run(
        [docker, "compose", "-f", str(PATH), "config", "-q"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
