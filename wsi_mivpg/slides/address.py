"""Addresses of remote slides (`https://…`, `s3://…`): what is one, and how it is shown without its secrets.

Strings only; opening is `readers/via_tiffslide.py`'s job.
"""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]*://")
_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s'\"]+")


def is_address(source: Path | str) -> bool:
    """Return whether `source` is text of the form `scheme://…`, also fsspec's chains such as `simplecache::s3://…`.

    A `Path` never is one: it has already turned `//` into `/`.
    """
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def shown_address(address: str) -> str:
    """Return the address without user, password and query, which carry the keys of signed web addresses."""
    return "::".join(_shown_link(link) for link in address.split("::"))


def named_path(address: str) -> PurePosixPath:
    """Return a path whose `name` and `stem` are those of the remote file; it leads nowhere on this machine."""
    links = [link for link in address.split("::") if "://" in link]
    return PurePosixPath(unquote(_shown_link(links[0]).partition("://")[2]))


def without_secrets(text: str, address: str) -> str:
    """Return a library's message about `address` with every address in it as `shown_address` shows it."""
    return _IN_TEXT.sub(lambda found: shown_address(found[0]), text.replace(address, shown_address(address)))


def _shown_link(link: str) -> str:
    scheme, mark, rest = link.partition("://")
    host, slash, path = rest.partition("/")
    host = host.rpartition("@")[2]
    if scheme.lower() in ("http", "https"):
        # Only on the web do these begin a query; elsewhere they may be part of a file's name.
        host, path = re.split(r"[?#]", host)[0], re.split(r"[?#]", path)[0]
    return f"{scheme}{mark}{host}{slash}{path}"
