"""Texts that strangers could put into captions, prompts and names, and a reader for what a page shows of them."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = (
    "<script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</svg><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><img src=x onerror=alert(1)>",
    "<img src=x onerror=alert(1)//",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    "]]><script>alert(1)</script>",
    "--><script>alert(1)</script>",
    "<!--",
    "<![CDATA[<script>alert(1)</script>]]>",
    "{{7*7}}",
    "{% raw %}",
    "{{ ''.__class__.__mro__ }}",
    "${7*7}",
    "$\\frac{1}{0}$",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "&lt;script&gt;",
    "&#x3c;b&#x3e;",
    "a\u202egnp.exe",
    "\u2066hidden\u2069",
    "nul\x00byte",
    "half a pair \ud800",
    "line\nbreak\r\nand\ttab",
    "\x1b[31mred",
    "_leading underscore",
    "<iframe src=//evil.example></iframe>",
    "<base href=//evil.example/>",
    "<form action=//evil.example><button>",
    "\u0301\u0301\u0301 marks",
    "x" * 100_000,
)

VOID = {"meta", "img", "br", "hr", "input", "link", "base", "col"}


class Page(HTMLParser):
    """The elements of a page, its text, and the texts of its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.by_id: dict[str, str] = {}
        self._open: list[str] = []
        self._ids: list[str | None] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
            self._ids.append(dict(attrs).get("data-fact"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                self._ids.pop()
            self._ids.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            return
        self.texts.append(data)
        for name in self._ids:
            if name is not None:
                self.by_id[name] = self.by_id.get(name, "") + data

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def refuse_anything_active(self) -> None:
        """Fail where the page holds what could run, load or send anything."""
        active = {"script", "iframe", "object", "embed", "form", "base", "link", "foreignobject", "animate", "set"}
        assert not active & set(self.tags)
        for name, value in self.attributes:
            assert not name.lower().startswith("on"), (name, value)
            if name in ("src", "href", "xlink:href", "action", "formaction", "data"):
                assert value.startswith(("data:image/", "#")) or (name == "href" and _is_local(value)), (name, value)


def _is_local(link: str) -> bool:
    return ":" not in link and not link.startswith("//")
