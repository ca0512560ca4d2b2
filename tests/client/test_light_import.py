import json
import subprocess
import sys

HEAVY = ("asyncio", "ssl", "click", "uvloop", "inspect", "uuid", "decimal", "logging", "email", "pathlib")
LATER = ("chervil.protocol", "chervil.client", "chervil.serialization", "msgpack")


def loaded_by(code):
    script = f"import json, sys; {code}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    return set(json.loads(done.stdout))


def test_importing_chervil_is_light():
    bare = loaded_by("pass")
    assert loaded_by("import chervil") & ({*HEAVY, *LATER} - bare) == set()


def test_defining_tasks_is_light():
    code = "import chervil; app = chervil.Chervil('x'); add = app.task(lambda x: x)"
    # What a measurement of coverage loads into every process is not ours.
    heavy = {"asyncio", "ssl", "click", "uvloop", "inspect"} - loaded_by("pass")
    assert loaded_by(code) & heavy == set()


def test_no_part_of_the_client_loads_what_it_never_needs():
    code = (
        "import chervil, chervil.client, chervil.publishing, chervil.failure, chervil.watching, chervil.retry"
    )
    assert loaded_by(code) & {"asyncio", "ssl", "click", "uvloop"} == set()
