"""What the verbs that talk to a broker share: the app, where one is needed, and a client."""

import click

from chervil.app import Chervil
from chervil.cli.common import Common
from chervil.client import Client
from chervil.loading import find_app

#: What brokers see as this program's name.
CLIENT_NAME = "chervil"


def load_app(common: Common) -> Chervil:
    """The app that -A names, with all its task modules imported."""
    if common.app is None:
        raise click.UsageError("Which app? Say it with -A MODULE, for example -A tasks")
    app = find_app(common.app, common.workdir)
    app.import_includes()
    return app


def open_client(common: Common) -> Client:
    """A client for the broker that is meant; the app is loaded only where it alone can say which."""
    app_url = load_app(common).conf.broker_url if common.asks_the_app else None
    return Client(common.found(app_url), name=CLIENT_NAME)
