from pathlib import Path

import pytest

from chervil.tls_files import TLSFiles, about_certificate, files_from, is_alert, read_setting


def test_the_setting_has_celerys_keys():
    assert read_setting({"ca_certs": "/ca", "certfile": Path("/cert"), "keyfile": "/key"}) == TLSFiles(
        "/ca", "/cert", "/key"
    )
    assert read_setting({"ca_certs": ""}) == TLSFiles()
    assert read_setting(TLSFiles("/ca")) == TLSFiles("/ca")


def test_true_means_the_systems_authorities_and_false_says_nothing():
    assert read_setting(True) == TLSFiles()
    assert read_setting(False) is None
    assert read_setting(None) is None


@pytest.mark.parametrize("value", [2, "required", "CERT_REQUIRED"])
def test_the_check_that_is_always_made_may_be_asked_for(value):
    assert read_setting({"cert_reqs": value, "ca_certs": "/ca"}) == TLSFiles("/ca")


@pytest.mark.parametrize("value", [0, 1, None, "none", "CERT_NONE"])
def test_a_check_that_is_to_be_left_out_is_refused_with_the_way_out(value):
    with pytest.raises(ValueError, match=r"always checked; leave cert_reqs out, and name .* ca_certs"):
        read_setting({"cert_reqs": value})


@pytest.mark.parametrize(
    ("value", "error", "told"),
    [
        (
            {"ssl_version": 3, "ciphers": "x"},
            ValueError,
            "has no 'ssl_version', 'ciphers'; .* ca_certs, certfile",
        ),
        ({"ca_certs": 5}, TypeError, "name of a file as ca_certs, not int"),
        ({"keyfile": "/key"}, ValueError, "keyfile without a certfile"),
        ("required", TypeError, "wants a dict"),
    ],
)
def test_what_cannot_be_used_is_explained(value, error, told):
    with pytest.raises(error, match=told):
        read_setting(value)


def test_the_environment_goes_before_the_setting(monkeypatch):
    setting = TLSFiles("/app/ca", "/app/cert", "/app/key")
    assert files_from(None) == TLSFiles()
    assert files_from(setting) == setting
    monkeypatch.setenv("CHERVIL_TLS_CA", "/env/ca")
    assert files_from(None) == TLSFiles("/env/ca")
    assert files_from(setting) == TLSFiles("/env/ca", "/app/cert", "/app/key")
    monkeypatch.setenv("CHERVIL_TLS_KEY", "/env/key")
    assert files_from(setting) == TLSFiles("/env/ca", "/app/cert", "/env/key")


def test_a_certificate_of_the_environment_is_not_given_the_settings_key(monkeypatch):
    monkeypatch.setenv("CHERVIL_TLS_CERT", "/env/both")
    assert files_from(TLSFiles("/app/ca", "/app/cert", "/app/key")) == TLSFiles("/app/ca", "/env/both", None)
    monkeypatch.setenv("CHERVIL_TLS_KEY", "/env/key")
    assert files_from(None) == TLSFiles(None, "/env/both", "/env/key")


def test_who_has_no_certificate_is_told_how_to_name_one_and_who_has_one_what_to_look_at():
    assert "name one with CHERVIL_TLS_CERT and CHERVIL_TLS_KEY" in about_certificate(TLSFiles())
    told = about_certificate(TLSFiles(cert="/etc/me.crt"))
    assert told.endswith("see that /etc/me.crt is of its --tls-client-ca and has not expired")


def test_an_alert_is_told_from_a_frame():
    assert is_alert(b"\x15\x03\x01\x00\x02\x02\x46")
    assert not is_alert(b"\x00\x15\x03\x01")
    assert not is_alert(b"")
