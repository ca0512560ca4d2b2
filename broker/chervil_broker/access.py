"""Who a connection is, and what it may do."""

import hmac
from collections.abc import Iterable
from typing import NamedTuple

from chervil.protocol import Code, RemoteProtocolError, Role
from chervil_broker.tokens import hashed
from chervil_broker.users import User, UsersFile

#: Whoever may do everything: the broker's own user, or anybody where nobody is asked.
EVERYTHING = frozenset(Role)
_REMEDY = "set CHERVIL_TOKEN_FILE to the file that it named at its start, or to one with a user's token"


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
                f"the certificate names {', '.join(names[:4])}, and no user is called so; "
                f"add one: chervil broker user add {names[0]}; or bring a token: {_REMEDY}",
            )
        raise RemoteProtocolError(Code.AUTH_REQUIRED, f"this broker asks for a token; {_REMEDY}")

    def _of_token(self, token: str) -> Identity:
        if self._local is not None and hmac.compare_digest(self._local, hashed(token)):
            return Identity("local", "token")
        user = self.file.users.of_token(token)
        if user is None:
            raise RemoteProtocolError(Code.AUTH_FAILED, f"the token is no user's of this broker; {_REMEDY}")
        return Identity(user.name, "token", user)

    def still_holds(self, identity: Identity) -> bool:
        """Whether the users file still says of somebody what it said then."""
        return identity.user is None or self.file.users.users.get(identity.name) == identity.user
