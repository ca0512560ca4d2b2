"""Settings of all tests."""

import os

from hypothesis import settings

# No deadline: how long an example takes says something about the machine's other work only.
# `.ci/run` tries the same examples each time, so that a change fails for its own faults.
settings.register_profile("chervil", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("chervil")
