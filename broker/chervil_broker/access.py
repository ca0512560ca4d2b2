"""Who a connection is, and what it may do."""

import hmac
from collections.abc import Iterable
from typing import NamedTuple

from chervil.protocol import Code, RemoteProtocolError, Role
from chervil_broker.tokens import hashed
from chervil_broker.users import NAME_MAX, User, UsersFile, named_by

#: Whoever may do everything: the broker's own user, or anybody where nobody is asked.
EVERYTHING = frozenset(Role)
_REMEDY = (
    "set CHERVIL_TOKEN_FILE to the file that it named at its start, or to one with a user's token, as on "
    "other machines (chervil broker user add makes one)"
)


class Identity(NamedTuple):
    """Who speaks on a connection."""

    name: str
    #: What it was known by: "token", "certificate", "Unix socket" or "--no-auth".
    by: str
    #: What the users file says of it; None for who may do everything everywhere.
    user: User | None = None

    @property
    def roles(self) -> frozenset[Role]:
        """What it may do; a role that is granted holds `any`, and `admin` all."""
        if self.user is None or Role.ADMIN in self.user.roles:
            return EVERYTHING
        return self.user.roles | {Role.ANY}

    def may_use(self, vhost: str) -> bool:
        return self.user is None or vhost in self.user.vhosts


#: Who has not said HELLO yet.
STRANGER = Identity("a stranger", "nothing", User("", b"", frozenset(), frozenset()))


class Access:
    """Tells who somebody is, by what they bring."""

    def __init__(self, file: UsersFile, *, local_token_hash: bytes | None, ask: bool = True) -> None:
        """`local_token_hash` is of the token that the broker's own user finds; `ask`: not --no-auth."""
        self.file = file
        self._local = local_token_hash
        self._ask = ask

    def identify(self, token: str | None, certificate: Iterable[str], *, same_user: bool) -> Identity:
        """`certificate`: the names in the client's; `same_user`: on a Unix socket, the broker's own user.

        A token that is brought must be right, whatever else holds. Raises RemoteProtocolError.
        """
        if token is not None and not same_user and self._ask:
            return self._of_token(token)
        if same_user:
            return Identity("local", "Unix socket")
        if not self._ask:
            return Identity("anybody", "--no-auth")
        names = list(certificate)
        users = self.file.users.users
        for name in names:
            if name in users:
                return Identity(name, "certificate", users[name])
        if names:
            raise RemoteProtocolError(
                Code.AUTH_FAILED,
                f"the certificate names {', '.join(name[:NAME_MAX] for name in names[:4])}, "
                "and no user is called so; "
                f"add one: chervil broker user add {names[0][:NAME_MAX]}; or bring a token: {_REMEDY}",
            )
        raise RemoteProtocolError(Code.AUTH_REQUIRED, f"this broker asks for a token; {_REMEDY}")

    def _of_token(self, token: str) -> Identity:
        if self._local is not None and hmac.compare_digest(self._local, hashed(token)):
            return Identity("local", "token")
        user = self.file.users.of_token(token)
        if user is None:
            # Whether there is such a user is no business of somebody who has no token of that user.
            claimed = named_by(token)
            remedy = f" (it names {claimed}); a new one for that user: chervil broker user rotate {claimed}"
            raise RemoteProtocolError(
                Code.AUTH_FAILED,
                f"the token is no user's of this broker{remedy if claimed else f'; {_REMEDY}'}",
            )
        return Identity(user.name, "token", user)

    def renewed(self, identity: Identity) -> Identity | None:
        """Who somebody is by the users file as it is now; None for one who has to come again.

        That is who was removed, has another token, or has lost a role that may be in use.
        """
        if identity.user is None:
            return identity
        user = self.file.users.users.get(identity.name)
        if user is None or user.token_hash != identity.user.token_hash:
            return None
        now = identity._replace(user=user)
        return now if now.roles >= identity.roles else None
