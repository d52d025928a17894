"""Finds what ``zensical build --strict`` lets pass: a picture, an entry of the menu, or a link of a docstring that
leads nowhere inside the built site, and a page that no other page leads to.

``python docs/check_site.py build/site`` prints them, and ends with 1 if there are any.
"""

from __future__ import annotations

import posixpath
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page has: places to jump to, and targets of links and pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.places: set[str] = {""}
        self.targets: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is not None and name in {"id", "name"}:
                self.places.add(value)
            elif value is not None and name in {"href", "src"}:
                self.targets.add(value)


def faults(site: Path) -> list[str]:
    """A line for each. Paths are those of the site, with slashes on every system."""
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    pages = {name: Page((site / name).read_text(encoding="utf-8")) for name in sorted(files) if name.endswith(".html")}
    pages.pop("404.html", None)  # it is shown in the place of any page, so that its links begin at the root
    found, reached = [], {"index.html"}
    for name, page in pages.items():
        for target in sorted(page.targets):
            link = urlsplit(target)
            if link.scheme or link.netloc:
                continue
            path = posixpath.join(posixpath.dirname(name), unquote(link.path)) if link.path else name
            path = posixpath.normpath(path)
            if path not in files:
                path = posixpath.normpath(posixpath.join(path, "index.html"))
            if path not in files:
                found.append(f"{name}: {target} leads nowhere")
            elif path in pages and unquote(link.fragment) not in pages[path].places:
                found.append(f"{name}: {target} leads to no place in {path}")
            if path != name:
                reached.add(path)
    return [*found, *(f"{name}: no page leads here" for name in sorted(pages.keys() - reached))]


if __name__ == "__main__":
    lines = faults(Path(sys.argv[1]))
    print("\n".join(lines) or "every link inside leads to something")
    sys.exit(bool(lines))
