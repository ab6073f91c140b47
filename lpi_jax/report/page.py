"""The report as one page: what is compared, then every method by itself, then where the numbers come from."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from lpi_jax.report import gallery, known, remarks
from lpi_jax.report.by_task import tasks
from lpi_jax.report.cells import Table
from lpi_jax.report.gallery import Gallery
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.legend import legend
from lpi_jax.report.tables import comparison, costs, future, probes, sources
from lpi_jax.terminal.plain_text import plain

STYLE = """\
body{font:15px/1.5 system-ui,sans-serif;color:#222;margin:2em auto;max-width:90em;padding:0 1em}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.2em .4em;text-align:right;white-space:nowrap;vertical-align:top}
td{border-top:1px solid #ddd}
thead tr:last-child th{border-bottom:1px solid #555;white-space:normal;vertical-align:bottom}
.over th{text-align:center;padding-bottom:0}
.word{text-align:left}
.word span{display:block;width:max-content;max-width:20em;white-space:normal;overflow-wrap:anywhere}
figure{margin:1.5em 0}
img{max-width:100%}
figcaption,.legend,ul{color:#555;max-width:60em}
h4{margin:1.5em 0 .3em}
h2{margin-top:2.5em;border-bottom:1px solid #ccc}
div{overflow-x:auto}
"""


class Picture(NamedTuple):
    """A picture of the page: the name of its file, what it shows, and the PNG."""

    file: str
    shows: str
    data: bytes


def page(
    blocks: Sequence[Block],
    overviews: Sequence[Picture],
    details: Sequence[Sequence[Picture]],
    galleries: Sequence[Gallery | None],
) -> str:
    """The page as HTML.

    Args:
      overviews: a picture of each block. details: the pictures of each group, in the order of blocks and groups.
      galleries: what each group shows of its items, in the same order.
    """
    parts = ["<h1>Runs of lpi_jax</h1>", f'<p class="legend">{escape(legend(blocks))}</p>']
    remaining = iter(zip(details, galleries, strict=True))
    for block, overview in zip(blocks, overviews, strict=True):
        tables = [comparison(block, ""), known.table(block), future(block), costs(block)]
        parts += [f"<h2>{escape(block.title)}</h2>", *map(_table, filter(None, tables)), _figure(overview)]
        for group in block.groups:
            parts += [f"<h3>{escape(group.label)}</h3>", *_sentences(remarks.of_group(group))]
            pictures, shown = next(remaining)
            parts += [*map(_table, filter(None, [tasks(group), probes(group)])), *map(_figure, pictures)]
            parts += gallery.section(shown) if shown else []
    protocols = dict.fromkeys(plain(run.protocol) for group in _groups(blocks) for run in group.runs)
    parts += ["<h2>Protocol</h2>", *(f"<p>{escape(protocol)}</p>" for protocol in protocols)]
    parts += ["<h2>Runs</h2>", _table(sources(blocks))]
    head = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>lpi_jax report</title>'
    return "\n".join([head, f"<style>\n{STYLE}{gallery.STYLE}</style>", *parts, "</html>\n"])


def _groups(blocks: Sequence[Block]) -> list[Group]:
    return [group for block in blocks for group in block.groups]


def _sentences(told: Sequence[str]) -> list[str]:
    return ["<ul>", *(f"<li>{escape(sentence)}</li>" for sentence in told), "</ul>"] if told else []


def _figure(picture: Picture) -> str:
    file, words = escape(picture.file), escape(picture.shows)
    return f'<figure><img src="{file}" alt="{words}"><figcaption>{words}</figcaption></figure>'


def _table(table: Table) -> str:
    def cells(tag: str, words: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=word' if number < table.words else ''}>{escape(word)}</{tag}>"
            for number, word in enumerate(words)
        )

    over = "".join(f'<th colspan="{columns}">{escape(word)}</th>' for word, columns in table.head)
    lines = [f'<tr class="over">{over}</tr>'] if table.head else []
    lines += [f"<tr>{cells('th', table.columns)}</tr></thead>", "<tbody>"]
    lines += [f"<tr>{cells('td', row)}</tr>" for row in table.rows]
    title = [f"<h4>{escape(table.title)}</h4>"] if table.title else []
    return "\n".join([*title, "<div><table>", "<thead>", *lines, "</tbody></table></div>"])
