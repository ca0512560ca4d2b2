import os
import pickle
import signal
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from chervil import Chervil
from chervil.address import BrokerURL, Found
from chervil.exceptions import ImproperlyConfigured, OperationalError
from chervil.task import AsyncTask


def test_task_works_with_and_without_parentheses():
    app = Chervil("x")

    @app.task
    def one(): ...

    @app.task()
    def two(): ...

    @app.task(name="three")
    def other(): ...

    assert list(app.tasks) == [f"{__name__}.one", f"{__name__}.two", "three"]


def made_in_main(app, monkeypatch, file):
    main = types.ModuleType("__main__")
    if file:
        main.__file__ = file
    monkeypatch.setitem(sys.modules, "__main__", main)

    def run(): ...

    run.__module__ = "__main__"
    return app.task(run).name


@pytest.mark.parametrize(
    ("main", "file", "name"),
    [("shop", "/x/tasks.py", "shop.run"), (None, "/x/tasks.py", "tasks.run"), (None, None, "__main__.run")],
)
def test_tasks_of_a_script_get_a_name_that_workers_know(monkeypatch, main, file, name):
    assert made_in_main(Chervil(main), monkeypatch, file) == name


def test_two_functions_cannot_have_one_name():
    app = Chervil("x")

    @app.task(name="t")
    def one(): ...

    with pytest.raises(ValueError, match="two tasks are named 't'"):

        @app.task(name="t")
        def two(): ...


def test_the_same_function_again_takes_its_place():
    app = Chervil("x")

    def make():
        def run(): ...

        return app.task(run)

    make()
    second = make()
    assert app.tasks[second.name] is second


@pytest.mark.parametrize("thing", [5, int])
def test_only_functions_are_tasks(thing):
    with pytest.raises(TypeError, match="a task is made of a function"):
        Chervil("x").task(thing)


def test_async_functions_are_async_tasks():
    @Chervil("x").task
    async def run(): ...

    assert type(run) is AsyncTask


def test_settings_come_with_the_app():
    app = Chervil("x", broker="chervil://h", include=["a"], task_default_queue="q")
    assert (app.conf.broker_url, app.conf.include, app.conf.task_default_queue) == (
        "chervil://h",
        ("a",),
        "q",
    )
    with pytest.raises(ImproperlyConfigured):
        Chervil("x", broker="amqp://h")


def test_includes_are_imported(tmp_path, monkeypatch):
    (tmp_path / "included_here.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    Chervil("x", include=["included_here"]).import_includes()
    assert sys.modules.pop("included_here").x == 1


def test_a_new_url_is_a_new_client(app, broker):
    before = app.client
    assert app.client is before
    app.conf.broker_url = "chervil://127.0.0.1:1"
    assert app.client is not before
    app.use_broker(Found(broker.url, "flag --broker"))
    assert app.client.found.source == "flag --broker"
    assert app.client.stats() == {"version": "0"}


def test_several_addresses_are_tried_in_order(broker, tmp_path):
    app = Chervil("x", broker=[f"chervil+unix://{tmp_path}/none", str(broker.url)])
    assert app.client.stats() == {"version": "0"}
    assert app.conf.broker_url == (f"chervil+unix://{tmp_path}/none", str(broker.url))
    app.close()


def test_the_files_of_the_settings_are_used_and_a_change_is_a_new_client(relayed, authority, broker):
    relay = relayed(authority.server_context(asks=True))
    app = Chervil("x", broker=str(relay.url), broker_use_ssl={"ca_certs": authority.files.ca})
    with pytest.raises(OperationalError, match="client certificate"):
        app.client.stats()
    ca, cert, key = authority.with_certificate
    app.conf.broker_use_ssl = {"ca_certs": ca, "certfile": cert, "keyfile": key}
    assert app.client.stats() == {"version": "0"}
    app.close()


def test_the_environments_files_go_before_the_settings(relayed, authority, broker, monkeypatch):
    relay = relayed(authority.server_context())
    monkeypatch.setenv("CHERVIL_TLS_CA", authority.files.ca)
    app = Chervil("x", broker=str(relay.url), broker_use_ssl={"ca_certs": "/nonexistent"})
    assert app.client.stats() == {"version": "0"}
    app.close()


def test_tls_wanted_at_an_address_without_it_is_an_operational_error():
    app = Chervil("x", broker="chervil://h", broker_use_ssl=True)
    with pytest.raises(OperationalError, match=r"broker_use_ssl is set, .* write chervils://h:2437"):
        _ = app.client


def test_threads_that_ask_at_once_get_the_same_client(app, monkeypatch):
    together = threading.Barrier(4)
    make = app._make_client

    def slowly(*named):
        together.wait(10)
        return make(*named)

    monkeypatch.setattr(app, "_make_client", slowly)
    with ThreadPoolExecutor(4) as pool:
        clients = [made.result(10) for made in [pool.submit(lambda: app.client) for _ in range(4)]]
    assert set(clients) == {app.client}


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_while_another_thread_makes_the_client_has_one_too(app, broker, monkeypatch, meanwhile):
    making, forked = threading.Event(), threading.Event()
    make = app._make_client

    def slowly(*named):
        making.set()
        assert forked.wait(10)
        return make(*named)

    monkeypatch.setattr(app, "_make_client", slowly)
    meanwhile(lambda: app.client)
    assert making.wait(10)
    monkeypatch.setattr(app, "_make_client", make)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        os._exit(0 if app.client.stats() == {"version": "0"} else 1)
    forked.set()
    assert os.waitpid(pid, 0)[1] == 0


def test_a_wrong_url_in_the_environment_is_an_operational_error(monkeypatch):
    monkeypatch.setenv("CHERVIL_BROKER_URL", "amqp://h")
    with pytest.raises(OperationalError, match="environment CHERVIL_BROKER_URL"):
        _ = Chervil("x").client


def test_results_of_an_app_can_be_pickled(app):
    result = app.AsyncResult("abc")
    assert pickle.loads(pickle.dumps(result)) == result
    assert BrokerURL.parse(str(app.client.found.url)) == app.client.found.url
