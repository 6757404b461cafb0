"""Pages that ask no network, of one file or with a folder beside it: one head and one set of
colours for every report.

In: a page's own style (``NAME.css``) and body (``NAME.html``, with $names) in its package, and what
the names stand for. Out: HTML.
"""

import base64
import html
import importlib.resources
import json
import string
from typing import Any

ONE_FILE = ""
FILES_BESIDE = " 'self' file:"
"""Where scripts may come from, beside the page itself."""


def page(package: str, name: str, *, title: str, scripts: str = ONE_FILE, **values: str) -> str:
    """The whole page.

    Args:
        package: where its files lie.
        name: of both files, without ending.
        title: plain text, for the head and as $title in the body.
        scripts: `ONE_FILE`, or `FILES_BESIDE` for a page that loads scripts from its own folder.
        values: HTML by the names in the body.
    """
    title = html.escape(title)
    body = string.Template(_text(package, f"{name}.html")).substitute(values, title=title)
    frame = string.Template(_text("interaction.session", "page_frame.html"))
    return frame.substitute(
        title=title, scripts=scripts, style=_text(package, f"{name}.css"), body=body
    )


def _text(package: str, file: str) -> str:
    return importlib.resources.files(package).joinpath(file).read_text("utf-8")


def json_inside(value: Any) -> str:
    """JSON for a script element: a text that closes the element must not close it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def data_url(kind: str, content: bytes) -> str:
    """A file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
