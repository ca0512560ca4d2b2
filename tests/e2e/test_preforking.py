"""The blocking client under servers that import an app, connect, and then fork: no connection has two owners."""

import concurrent.futures
import http.client
import json
import re
import sys
import threading

import pytest

from tests.e2e.stage import DEADLINE, Process, Stage

pytestmark = pytest.mark.e2e

REQUESTS = 50

SHOP = """
import glob, json, os, time
from chervil import Chervil

app = Chervil("shop", broker=os.environ["SHOP_BROKER"])

@app.task
def sell(number):
    return number

# Gunicorn with --preload imports this once, in the master: its workers inherit the connection.
at_import = sell.delay("import").id

def publish(label):
    # One id of our own and one that is drawn, and what the broker answers about just these.
    ids = [sell.apply_async((label,), task_id=label).id, sell.delay(label).id]
    return ids, [[status.id, status.stage.name] for status in app.client.query(ids)]

def web(environ, start_response):
    # Until each of the three workers has a request, so that none of them can have them all.
    open(f"worker-{os.getpid()}", "w").close()
    end = time.monotonic() + 15
    while len(glob.glob("worker-*")) < 3 and time.monotonic() < end:
        time.sleep(0.002)
    ids, seen = publish("request-" + environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "ids": ids, "seen": seen, "import": at_import}).encode()]
"""

#: Forks in each of the ways that programs fork, while threads of the same process publish.
FORKS = """
import concurrent.futures, json, multiprocessing, os, sys, threading
from shop import publish, at_import

ROUNDS = 5
ids = [at_import]
wrong = []
lock = threading.Lock()

def work(label):
    mine = []
    for number in range(ROUNDS):
        published, seen = publish(f"{label}-{number}")
        mine += published
        if seen != [[id, "QUEUED"] for id in published]:
            wrong.append([label, published, seen])
    return mine

def in_threads(label, count=3):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        labels = [f"{label}.{number}" for number in range(count)]
        return [id for part in pool.map(work, labels) for id in part]

def in_process(label, pipe):
    pipe.send([in_threads(label), wrong])
    pipe.close()

def note(found):
    with lock:
        ids.extend(found)

def multiprocess(label):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=in_process, args=(label, theirs))
    process.start()
    found, bad = ours.recv()
    process.join()
    note(found)
    wrong.extend(bad)

def fork(label):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, json.dumps([work(label), wrong]).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        found, bad = json.load(file)
    assert os.waitpid(pid, 0)[1] == 0
    note(found)
    wrong.extend(bad)

jobs = [lambda n=n: note(work(f"thread{n}")) for n in range(4)]
jobs += [lambda n=n: multiprocess(f"process{n}") for n in range(3)]
jobs += [lambda n=n: fork(f"fork{n}") for n in range(3)]
with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
    for job in [pool.submit(job) for job in jobs]:
        job.result(timeout=60)
note(work("afterwards"))
print("done " + json.dumps({"ids": ids, "wrong": wrong}), flush=True)
"""


@pytest.fixture
def broker(stage: Stage) -> Process:
    return stage.broker("--log-format", "text")


def check_broker(stage: Stage, broker: Process, ids: list[str]) -> None:
    """The broker holds each task once, was sent nothing else, and had nothing to complain of."""
    assert len(set(ids)) == len(ids), "an id was given twice"
    client = stage.app().client
    assert {status.stage.name for status in client.query(ids)} == {"QUEUED"}
    counters = client.stats()["counters"]
    assert counters["published"] == len(ids)
    assert not counters.get("duplicates")
    assert not [name for name in counters if name.startswith("refused_")], counters
    client.close()
    broker.signal(15)
    assert broker.ended() == 0
    complaints = [line for line in broker.output if re.search("WARNING|ERROR|refused", line)]
    # It says how many tasks it had in memory when it was stopped, and no more.
    assert [line for line in complaints if "--memory" not in line] == []


def ask(port: int, number: int, together: threading.Barrier) -> dict:
    together.wait(DEADLINE)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request("GET", f"/?{number}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return json.loads(body)
    finally:
        connection.close()


@pytest.mark.parametrize(
    "kind", [["sync"], ["gthread", "--threads", "4", "--worker-connections", "5"]], ids=lambda kind: kind[0]
)
def test_preloading_gunicorn_confirms_every_publish_to_the_one_that_asked(
    stage: Stage, broker: Process, kind: list[str]
):
    (stage.folder / "shop.py").write_text(SHOP)
    command = [
        "gunicorn",
        "--preload",
        "--workers",
        "3",
        "--worker-class",
        *kind,
        "--bind",
        "127.0.0.1:0",
        "shop:web",
    ]
    gunicorn = stage.run("gunicorn", command, SHOP_BROKER=stage.url)
    port = int(re.search(r"127\.0\.0\.1:(\d+)", gunicorn.wait_for("Listening at")).group(1))
    together = threading.Barrier(REQUESTS)
    with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
        answers = list(pool.map(lambda number: ask(port, number, together), range(REQUESTS)))
    for number, answer in enumerate(answers):
        assert answer["ids"][0] == f"request-{number}"
        assert answer["seen"] == [[id_, "QUEUED"] for id_ in answer["ids"]], "another one's reply"
    assert len({answer["pid"] for answer in answers}) == 3, "each worker had its share"
    (at_import,) = {answer["import"] for answer in answers}
    gunicorn.signal(15)
    assert gunicorn.ended() == 0
    assert not [line for line in gunicorn.output if "Traceback" in line], "\n".join(gunicorn.output)
    check_broker(stage, broker, [at_import, *(id_ for answer in answers for id_ in answer["ids"])])


def test_forks_from_threads_and_threads_in_forks_share_no_connection(stage: Stage, broker: Process):
    (stage.folder / "shop.py").write_text(SHOP)
    (stage.folder / "forks.py").write_text(FORKS)
    quiet = "ignore::DeprecationWarning" if sys.version_info >= (3, 12) else ""
    forks = stage.run("forks", ["forks"], SHOP_BROKER=stage.url, PYTHONWARNINGS=quiet)
    report = json.loads(forks.wait_for("done ", deadline=40).removeprefix("done "))
    assert forks.ended() == 0
    assert report["wrong"] == []
    # Four threads, three processes of three threads, three forks, and the main thread; two ids a round.
    assert len(report["ids"]) == 1 + 2 * 5 * (4 + 3 * 3 + 3 + 1)
    check_broker(stage, broker, report["ids"])
