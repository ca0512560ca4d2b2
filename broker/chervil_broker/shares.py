"""How a broker's memory is divided among its vhosts."""

from collections.abc import Mapping

from chervil_broker.sizes import show_size
from chervil_broker.users import Quotas, UsersError

#: What of a share is for results and what is remembered of finished tasks: a quarter.
RESULTS_PART = 4
#: With less an engine has no room for one large task.
SHARE_MIN = 1 << 20


def shares(total: int, vhosts: Mapping[str, Quotas]) -> dict[str, int]:
    """Bytes of each vhost: its quota, and those without one have an equal part of what is left.

    So no vhost can take what is another's. Raises UsersError where the quotas do not fit.
    """
    fixed = {name: quotas.max_memory for name, quotas in vhosts.items() if quotas.max_memory is not None}
    free = [name for name in vhosts if name not in fixed]
    left = total - sum(fixed.values())
    if left < SHARE_MIN * len(free):
        needed = f"{show_size(sum(fixed.values()))} for {', '.join(fixed)}" if fixed else "nothing"
        raise UsersError(
            f"--max-memory {show_size(total)} is not enough: the quotas of vhosts take {needed}, and "
            f"{len(free)} without a quota need {show_size(SHARE_MIN)} each; "
            "give more, or change them: chervil broker vhost set"
        )
    return {name: fixed.get(name, left // len(free) if free else 0) for name in vhosts}
