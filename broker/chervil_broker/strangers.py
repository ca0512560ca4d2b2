"""Who is connected and has not said HELLO: how many there may be, and who makes room for whom."""

from typing import Generic, TypeVar

#: Connections without HELLO at once. Each costs the kernel's buffers and 4 KiB here, for 10 s at most; a
#: storm of reconnecting workers says HELLO within milliseconds.
PREAUTH_PEERS_MAX = 1_024
#: And from one address, so that a single host cannot take all of them. Unix sockets have no address:
#: whoever may open them is the broker's own user.
PREAUTH_PER_ADDRESS_MAX = 256

S = TypeVar("S")


class Strangers(Generic[S]):
    """Connections from their beginning to their HELLO or their end, by address; `most` at once."""

    def __init__(self, most: int = PREAUTH_PEERS_MAX) -> None:
        self._most = min(most, PREAUTH_PEERS_MAX)
        #: Those of an address, oldest first.
        self._by_address: dict[str | None, dict[S, None]] = {}
        self._all = 0

    def refusal(self, address: str | None) -> str | None:
        """Why no more may come from this address, or from none, while nobody makes room."""
        if address is not None and len(self._by_address.get(address, ())) >= PREAUTH_PER_ADDRESS_MAX:
            return f"{PREAUTH_PER_ADDRESS_MAX} connections from {address} have not said HELLO yet"
        if self._all >= self._most:
            return f"{self._all} connections have not said HELLO yet; try again soon"
        return None

    def who_makes_room(self, address: str | None) -> S | None:
        """Whose place one more of this address may have: the oldest of the address that has most of them.

        Only where that is more than this one has then: so a few addresses cannot keep out the others, and
        a storm from all of them does not throw itself out.
        """
        mine = 0 if address is None else len(self._by_address.get(address, ()))
        others = [each for whose, each in self._by_address.items() if whose is not None]
        most = max(others, key=len, default={})
        return next(iter(most)) if len(most) > mine + 1 else None

    def came(self, stranger: S, address: str | None) -> None:
        self._by_address.setdefault(address, {})[stranger] = None
        self._all += 1

    def left(self, stranger: S, address: str | None) -> None:
        """One of those that came is known now, or gone."""
        self._all -= 1
        theirs = self._by_address[address]
        del theirs[stranger]
        if not theirs:
            del self._by_address[address]

    def __len__(self) -> int:
        return self._all
