"""What all pages share: one file that opens from disk, in light and dark, without asking the network for anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

# `default-src 'none'` makes the browser refuse what this promises not to do: nothing is ever fetched from elsewhere.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' data: file:; "
    "media-src 'self' data: file:"
)
STYLE = """
:root { color-scheme: light dark; --fg: #111827; --bg: #ffffff; --soft: #6b7280; --line: #e5e7eb; --ok: #15803d;
        --bad: #b91c1c; --card: #f9fafb; --accent: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --fg: #e5e7eb; --bg: #111827; --soft: #9ca3af; --line: #374151;
        --ok: #4ade80; --bad: #f87171; --card: #1a2332; --accent: #60a5fa; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } .soft { color: var(--soft); } .big { font-size: 3rem; font-weight: 700; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left;
       border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
img, video { max-width: 100%; background: white; border-radius: .3rem; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: .3rem; font-size: .85rem; }
.ok { color: var(--ok); } .bad { color: var(--bad); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
"""


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page; `title` is text, `body` is HTML."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escape(title)}</title>'
    )
    code = f"<script>{script}</script>" if script else ""
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}{style}</style></head>'
        f"<body>{body}{code}</body></html>\n"
    )


def scrolled(content: str) -> str:
    """HTML that scrolls sideways on its own where it is wider than the page, by keyboard too."""
    return f'<div class="scroll" tabindex="0">{content}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, is_html: bool = False) -> str:
    """A plain table; cells are text unless `is_html`."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ["".join(f"<td>{cell if is_html else escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
