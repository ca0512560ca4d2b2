"""The settings: one table, from which attributes, checks and suggestions derive."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chervil import absent
from chervil.exceptions import ImproperlyConfigured
from chervil.suggest import did_you_mean, nearest

if TYPE_CHECKING:
    from datetime import timedelta

    from chervil.tls_files import TLSFiles

_PRIORITY_MAX = 9
_NAME_MAX = 255
_DELIVERY_LIMIT_MAX = 100
_SERIALIZERS = ("json", "msgpack")


class Settings:
    """An app's settings: attributes and a mapping at once.

    The attributes below are all that Chervil knows, with their defaults. A name within two typing slips
    of one of them, and one that only Celery has, raises ImproperlyConfigured; any other name is the
    application's own, kept with one warning. A value that cannot be used raises ImproperlyConfigured.
    """

    #: Where the broker listens: a URL, or several (a list, or a text with ";" between) that are tried in
    #: order. None: see `chervil.address.find_broker`.
    broker_url: str | Sequence[str] | None = None
    #: PEM files for chervils:// URLs: a dict of ca_certs, certfile and keyfile, kept as TLSFiles. True: TLS
    #: with the system's CAs. The environment's CHERVIL_TLS_* go before it.
    broker_use_ssl: "TLSFiles | Mapping[str, Any] | bool | None" = None
    #: Modules to import for their tasks.
    include: tuple[str, ...] = ()
    #: The same; Celery has both.
    imports: tuple[str, ...] = ()
    #: The queue of tasks that name none.
    task_default_queue: str = "default"
    #: 0 to 9, 9 first.
    task_default_priority: int = 0
    #: How arguments are written: json or msgpack.
    task_serializer: str = "json"
    #: How results are written.
    result_serializer: str = "json"
    #: Serializers that are read; content in another is refused.
    accept_content: tuple[str, ...] = ("json", "msgpack")
    #: Keep the outcome of tasks, not what they return.
    task_ignore_result: bool = False
    #: When a task counts as done: after it ran, so that one whose process dies runs again (at most
    #: `task_delivery_limit` starts); False has it run at most once. Celery's default is False.
    task_acks_late: bool = True
    #: False: a task whose process dies is a FAILURE at once. None and True: it runs again if it is acked
    #: late.
    task_reject_on_worker_lost: bool | None = None
    #: How often a task may be begun before it is parked because its process died each time; 1 to 100.
    task_delivery_limit: int = 3
    #: After this the process that runs a task is killed, and the task is a FAILURE: seconds, a timedelta,
    #: or None (0) for no limit.
    task_time_limit: "float | timedelta | None" = None
    #: After this SoftTimeLimitExceeded is raised in the task, which may catch it to clean up.
    task_soft_time_limit: "float | timedelta | None" = None
    #: How long a result is kept: seconds, a timedelta, or None for as long as there is room.
    result_expires: "float | timedelta | None" = 86400
    #: The zone of naive times; a name such as Europe/Berlin.
    timezone: str = "UTC"
    #: Seconds in which a publish is confirmed, or raises.
    task_publish_timeout: float = 10.0
    #: Seconds for a connection to be made.
    broker_connection_timeout: float = 4.0
    #: How many connections publishing may use at once.
    broker_pool_limit: int = 10
    #: Run tasks here, at the call, without a broker.
    task_always_eager: bool = False
    #: Let the exceptions of such tasks out of the call.
    task_eager_propagates: bool = False

    # Beside the dictionary, which holds settings and nothing else.
    __slots__ = ("__dict__", "_changes")
    #: How often a setting was set: what is made of settings is good until this grows.
    _changes: int

    def __init__(self, **values: Any) -> None:
        self._changes = 0
        self.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_changes":
            object.__setattr__(self, name, value)
            return
        check = _CHECKS.get(name)
        if check is not None:
            try:
                value = check(value)
            except (TypeError, ValueError) as error:
                raise ImproperlyConfigured(f"setting {name} {error}") from None
        elif name not in self.__dict__:
            if name in absent.SETTINGS:
                raise ImproperlyConfigured(f"the setting {name!r} is not in this release of Chervil")
            if near := nearest(name, _CHECKS):
                raise ImproperlyConfigured(f"there is no setting {name!r}; did you mean {near!r}?")
            warnings.warn(
                f"{name!r} is no setting of Chervil; kept as your own", UserWarning, stacklevel=_caller()
            )
        self.__dict__[name] = value
        self._changes += 1

    def __getattr__(self, name: str) -> Any:
        if name in absent.SETTINGS:
            raise AttributeError(f"the setting {name!r} is not in this release of Chervil")
        raise AttributeError(f"there is no setting {name!r}{did_you_mean(name, _CHECKS)}")

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def __contains__(self, name: object) -> bool:
        return name in _CHECKS or name in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter({**_CHECKS, **self.__dict__})

    def __len__(self) -> int:
        return len({**_CHECKS, **self.__dict__})

    def keys(self) -> Iterable[str]:
        return list(self)

    def items(self) -> Iterable[tuple[str, Any]]:
        return [(name, self[name]) for name in self]

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401  # this is what get() is made of

    def update(self, values: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Sets several at once; where one of them is wrong, none is set."""
        checked = Settings.__new__(Settings)
        checked._changes = 0
        checked.__dict__.update(self.__dict__)
        for name, value in {**(values or {}), **more}.items():
            setattr(checked, name, value)
        self.__dict__.update(checked.__dict__)
        self._changes += 1

    def __repr__(self) -> str:
        changed = {name: value for name, value in self.__dict__.items() if name != "broker_url"}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


def _caller() -> int:
    """`stacklevel` of a warning: the first frame outside of this file."""
    import sys

    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        level, frame = level + 1, frame.f_back
    return level


def name(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value.encode()) > _NAME_MAX or "\0" in value:
        raise ValueError(f"wants a text of 1 to {_NAME_MAX} bytes, not {value!r}")
    return value


def _urls(value: Any) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        value = tuple(value)
    elif not isinstance(value, str):
        raise TypeError(
            f"wants a URL such as chervil://127.0.0.1:2437, or a list of them, not {type(value).__name__}"
        )
    from chervil.address import parse_urls

    parse_urls(value)
    return value  # type: ignore[no-any-return]  # checked above


def _use_ssl(value: Any) -> "TLSFiles | None":
    from chervil.tls_files import read_setting

    return read_setting(value)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"wants a list of names, not {value!r}")
    return tuple(name(one) for one in value)


def serializer(value: Any) -> str:
    if value not in _SERIALIZERS:
        raise ValueError(f"wants {' or '.join(_SERIALIZERS)}, not {value!r}")
    return str(value)


def _serializers(value: Any) -> tuple[str, ...]:
    return tuple(serializer(one) for one in _names(value))


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"wants True or False, not {value!r}")
    return value


def priority(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _PRIORITY_MAX:
        raise ValueError(f"wants an integer from 0 to {_PRIORITY_MAX}, not {value!r}")
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"wants a dict, not {value!r}")
    return value


def delivery_limit(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _DELIVERY_LIMIT_MAX:
        raise ValueError(f"wants an integer from 1 to {_DELIVERY_LIMIT_MAX}, not {value!r}")
    return value


def flag_or_none(value: Any) -> bool | None:
    return None if value is None else flag(value)


def time_limit(value: Any) -> Any:
    """Seconds or a timedelta; None and 0 say nothing, as in Celery."""
    if value is not None:
        from chervil.times import relative_ms

        try:
            relative_ms(value, "")
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).lstrip()) from None
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"wants an integer from 1, not {value!r}")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"wants seconds above 0, not {value!r}")
    return float(value)


def _expires(value: Any) -> Any:
    if value is not None:
        from chervil.times import relative_ms

        relative_ms(value, "(how long results are kept)")
    return value


def _timezone(value: Any) -> str:
    from chervil.times import zone

    zone(name(value))
    return str(value)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "broker_url": _urls,
    "broker_use_ssl": _use_ssl,
    "include": _names,
    "imports": _names,
    "task_default_queue": name,
    "task_default_priority": priority,
    "task_serializer": serializer,
    "result_serializer": serializer,
    "accept_content": _serializers,
    "task_ignore_result": flag,
    "task_acks_late": flag,
    "task_reject_on_worker_lost": flag_or_none,
    "task_delivery_limit": delivery_limit,
    "task_time_limit": time_limit,
    "task_soft_time_limit": time_limit,
    "result_expires": _expires,
    "timezone": _timezone,
    "task_publish_timeout": _seconds,
    "broker_connection_timeout": _seconds,
    "broker_pool_limit": _count,
    "task_always_eager": flag,
    "task_eager_propagates": flag,
}
