"""Where the links of a source lead once it is a page.

A notebook or document links what lies beside it in the repository. On its page such a link leads to the page of what is
linked; a file that has none is given one that shows it (`Links.shown`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape, unescape
from pathlib import Path

_LINK = re.compile(r'(<a\b[^>]*\bhref=")([^"]*)')
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


class LinkError(ValueError):
    """A link to a file that is not there, or a file whose page cannot have a name of its own."""


class Links:
    """The links of all sources.

    Args:
        pages: source, a notebook or document -> the address of its page. All pages lie in one folder.

    Attributes:
        shown: other files that are linked -> the address of the page that has to show them; filled by `resolved`.
    """

    def __init__(self, pages: Mapping[Path, str]):
        self.pages = {source.resolve(): address for source, address in pages.items()}
        self.shown: dict[Path, str] = {}

    def resolved(self, html: str, source: Path) -> str:
        """The HTML made of a source, with its links leading to pages. Raises LinkError for one that leads nowhere."""
        return _LINK.sub(lambda link: link[1] + escape(self._address(unescape(link[2]), source)), html)

    def _address(self, link: str, source: Path) -> str:
        name, hash, anchor = link.partition("#")
        if not name or _ELSEWHERE.match(name):
            return link
        target = (source.parent / name).resolve()
        return (self.pages.get(target) or self._address_shown(target, link, source)) + hash + anchor

    def _address_shown(self, target: Path, link: str, source: Path) -> str:
        if not target.is_file():
            raise LinkError(f"{source.name} links {link!r}, and there is no file {target}. Mend the link.")
        address = f"{target.name}.html"
        for other, taken in (self.pages | self.shown).items():
            if taken == address and other != target:
                raise LinkError(
                    f"{source.name} links {link!r}, whose page would have the name {address} of the page of {other}. "
                    "Rename one of the two files."
                )
        return self.shown.setdefault(target, address)
