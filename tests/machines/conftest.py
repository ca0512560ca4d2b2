import os

import pytest

from tests.machines.network import missing

#: Set to 1 where these tests must run: what would skip them fails them.
REQUIRED = "CHERVIL_REQUIRE_NETNS"


@pytest.fixture(scope="session", autouse=True)
def _network_is_possible() -> None:
    """Skips everything here where no network can be made, or fails it."""
    if why := missing():
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED} is set, and no network can be made: {why}")
        pytest.skip(f"no network can be made: {why}; as root, or where users have namespaces of their own")
