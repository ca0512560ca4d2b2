"""What the verbs that talk to a broker share: the app, where one is needed, and a client."""

from typing import cast

from chervil.address import Found
from chervil.app import Chervil
from chervil.cli.common import Common
from chervil.client import Client
from chervil.exceptions import AppNotFound
from chervil.loading import find_app
from chervil.tls_files import TLSFiles


def app_for(common: Common) -> Chervil:
    """The app that -A names, with its task modules imported, or one without tasks; its broker is set."""
    if common.app is None:
        app = Chervil("chervil")
        app.use_broker(common.found())
        return app
    app = find_app(common.app, common.workdir)
    try:
        app.import_includes()
    except Exception as error:
        raise AppNotFound(f"a module of app.conf.include cannot be imported: {error}") from error
    app.use_broker(found_for(app, common))
    return app


def found_for(app: Chervil, common: Common) -> Found:
    """The broker of an app that is loaded. Raises click.UsageError for a URL that cannot be used."""
    # The settings have checked it.
    return common.found(app.conf.broker_url, cast("TLSFiles | None", app.conf.broker_use_ssl))


def open_client(common: Common) -> Client:
    """A client for the broker that is meant; the app is loaded only where it alone can say which."""
    if common.asks_the_app:
        return app_for(common).client
    return Client(common.found())
