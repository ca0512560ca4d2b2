"""What the verbs that talk to a broker share: the app, where one is needed, and a client."""

from chervil.app import Chervil
from chervil.cli.common import Common
from chervil.client import Client
from chervil.exceptions import AppNotFound
from chervil.loading import find_app


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
    app.use_broker(common.found(app.conf.broker_url))
    return app


def open_client(common: Common) -> Client:
    """A client for the broker that is meant; the app is loaded only where it alone can say which."""
    if common.asks_the_app:
        return app_for(common).client
    return Client(common.found())
