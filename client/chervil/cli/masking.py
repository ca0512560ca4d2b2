"""What may be shown of settings and of the environment: *** stands where a secret is, or may be.

Rather too much is hidden than too little: who reads a report is not known.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from chervil.address import parse_urls

MASK = "***"

#: Parts of a name that say that its value is nobody's business.
_TELLING = r"token|passw|passphrase|pwd|secret|key|credential|auth|signature|cookie|dsn"
_TELLING_NAME = re.compile(_TELLING, re.IGNORECASE)

#: Settings and variables whose value is the broker's address.
_BROKER_NAMES = frozenset({"CHERVIL_BROKER_URL", "broker_url"})

#: Everything that may be user, password or token in a URL. An @ within one has not always been escaped, so
#: this goes on to the last.
_CREDENTIALS = re.compile(r"://.*@", re.DOTALL)

#: `password=...`, in a URL's query or in a driver's own notation, and `'password': '...'`. A colon counts
#: after fewer names: it stands in prose too.
_ASSIGNED = re.compile(
    rf"((?:[\w-]*(?:{_TELLING})[\w-]*\s*=|[\w-]*(?:token|password|passwd|secret|key)[\"']?\s*:)\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^&;,\s]+)",
    re.IGNORECASE,
)

#: What looks like a token itself: 32 characters or more of hex, or of base64 with a capital and a digit.
_TOKEN = re.compile(
    r"(?<![\w-])(?:[0-9a-f-]{32,}(?![\w-])|(?=[a-zA-Z_-]*\d)(?=[a-z0-9_-]*[A-Z])[\w-]{32,}=*)", re.ASCII
)


def masked(value: Any, name: str = "") -> Any:
    """A value that may be shown and written as JSON; `name` is that of the setting or variable.

    Collections are gone through; what is no JSON is shown by its repr. The name of a file that is there is
    no secret, whatever the setting is called.
    """
    if value is None or value == "" or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): masked(each, f"{name} {key}") for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(each, name) for each in value]
    if _TELLING_NAME.search(name):
        return value if _is_file(value) else MASK
    if isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    if name in _BROKER_NAMES or text.lstrip().lower().startswith("chervil"):
        return _masked_urls(text)
    # A URL that lacks its scheme still has its token before the @.
    return masked_text(f"{MASK}@{text.rpartition('@')[2]}" if "@" in text and "://" not in text else text)


def masked_text(text: str) -> str:
    """A text with what is secret in it masked: credentials in URLs, values of telling names, tokens."""
    text = _CREDENTIALS.sub(f"://{MASK}@", text)
    return _TOKEN.sub(MASK, _ASSIGNED.sub(rf"\g<1>{MASK}", text))


def _masked_urls(text: str) -> str:
    """A broker's URLs; nothing of them where one does not parse, as nobody knows then what is the token."""
    try:
        parse_urls(text)
    except ValueError:
        return MASK
    return ";".join(masked_text(url) for url in text.split(";"))


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and os.path.isabs(value) and os.path.isfile(value)  # noqa: PTH117, PTH113  # a text from outside
