"""Secrets in values, names, URLs and prose."""

import datetime as dt
from pathlib import Path

import pytest

from chervil.cli.masking import masked, masked_text


@pytest.mark.parametrize(
    "name",
    [
        "CHERVIL_TOKEN",
        "db_password",
        "SECRET_KEY",
        "aws_access_key_id",
        "apiKey",
        "AUTHORIZATION",
        "session_cookie",
        "SENTRY_DSN",
    ],
)
@pytest.mark.parametrize("value", ["geheim", 4711, b"geheim", "geheim with spaces"])
def test_a_telling_name_hides_its_value(name, value):
    assert masked(value, name) == "***"


def test_what_is_no_secret_is_shown_as_it_is():
    assert masked("reports", "task_default_queue") == "reports"
    assert masked(5, "broker_pool_limit") == 5
    assert masked(0.5, "broker_connection_timeout") == 0.5
    assert masked(False, "use_auth") is False
    assert masked(None, "password") is None
    assert masked("", "password") == ""
    assert masked(dt.timedelta(days=1), "result_expires") == "datetime.timedelta(days=1)"


def test_the_name_of_a_file_that_is_there_is_shown_and_any_other_value_is_not(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("geheim")
    assert masked(str(token), "CHERVIL_TOKEN_FILE") == str(token)
    assert masked(str(tmp_path), "CHERVIL_TOKEN_FILE") == "***"
    assert masked(str(tmp_path / "gone"), "CHERVIL_TOKEN_FILE") == "***"
    assert masked("pyproject.toml", "CHERVIL_TOKEN_FILE") == "***"


def test_collections_are_gone_through():
    value = {"ca_certs": "ca.pem", "password": "geheim", "more": [{"api_key": "geheim"}, ("a", {"b"})]}
    assert masked(value, "broker_use_ssl") == {
        "ca_certs": "ca.pem",
        "password": "***",
        "more": [{"api_key": "***"}, ["a", ["b"]]],
    }
    assert masked({"inner": ["geheim"]}, "my_secrets") == {"inner": ["***"]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("chervil://geheim@host:1/shop", "chervil://***@host:1/shop"),
        ("amqp://user:ge@he/im@host", "amqp://***@host"),
        ("chervil://ge heim@host", "***"),
        ("chervil://geheim@host;chervil://geheim@h2/v", "chervil://***@host;chervil://***@h2/v"),
        ("chervil://host:1", "chervil://host:1"),
        ("geheim@host", "***@host"),
        ("postgres://h/db?user=me&password=geheim&x=1", "postgres://h/db?user=me&password=***&x=1"),
        ("host=h password=geheim user=me", "host=h password=*** user=me"),
        ("host=h password='ge heim' user=me", "host=h password=*** user=me"),
        ("Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyMQ", "***"),
        ("token 0123456789abcdef0123456789abcdef.", "token ***."),
    ],
)
def test_secrets_within_a_value_are_hidden(text, shown):
    assert masked(text, "anything") == shown


def test_a_list_of_urls_is_hidden_one_by_one():
    assert masked(["chervil://a1@h1", "chervil://b2@h2"], "broker_url") == [
        "chervil://***@h1",
        "chervil://***@h2",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "redis://:geheim@h",
        "geheim",
        "chervil://h:1/?token=geheim",
        "chervil://h:1/geheim,chervil://geheim@h:2",
        "chervil://h:1;chervil://ge/heim@h:2",
        "chervil://ge/heim@h",
    ],
)
@pytest.mark.parametrize("name", ["CHERVIL_BROKER_URL", "broker_url"])
def test_of_a_broker_url_that_does_not_parse_nothing_is_shown(text, name):
    assert masked(text, name) == "***"
    assert masked(["chervil://h", text], name) == ["chervil://h", "***"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("KeyError: cannot reach redis://:geheim@h:1/0", "KeyError: cannot reach redis://***@h:1/0"),
        ("bad row {'password': 'ge heim', 'n': 1}", "bad row {'password': ***, 'n': 1}"),
        ("the token: geheim", "the token: ***"),
    ],
)
def test_secrets_within_prose_are_hidden(text, shown):
    assert masked_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "AUTH_FAILED: the token is not this broker's; set CHERVIL_TOKEN_FILE to the file that it named",
        "cannot reach the broker at chervil://127.0.0.1:2437 (default): Connection refused; start one: chervil broker",
        "worker@host said nothing",
        "a_module_2_of_those_with_long_names.which_is_no_secret cannot be imported",
        "no module 'shop' in /srv/shop or on Python's path",
    ],
)
def test_messages_without_a_secret_stay_as_they_are(text):
    assert masked_text(text) == text
