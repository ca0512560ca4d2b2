"""Who is connected and has not said HELLO: how many there may be, in all and from one address."""

from collections import Counter

#: Connections without HELLO at once. Each costs the kernel's buffers and 4 KiB here, for 10 s at most; a
#: storm of reconnecting workers says HELLO within milliseconds.
PREAUTH_PEERS_MAX = 1_024
#: And from one address, so that a single host cannot take all of them. Unix sockets have no address:
#: whoever may open them is the broker's own user.
PREAUTH_PER_ADDRESS_MAX = 256


class Strangers:
    """Counts connections from their beginning to their HELLO or their end."""

    def __init__(self) -> None:
        self._by_address: Counter[str] = Counter()
        self._all = 0

    def came(self, address: str | None) -> str | None:
        """Takes one in, from this address or none; else says why not."""
        if self._all >= PREAUTH_PEERS_MAX:
            return f"{self._all} connections have not said HELLO yet; try again soon"
        if address is not None:
            if self._by_address[address] >= PREAUTH_PER_ADDRESS_MAX:
                return f"{PREAUTH_PER_ADDRESS_MAX} connections from {address} have not said HELLO yet"
            self._by_address[address] += 1
        self._all += 1
        return None

    def left(self, address: str | None) -> None:
        """One of those that were taken in is known now, or gone."""
        self._all -= 1
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def __len__(self) -> int:
        return self._all
