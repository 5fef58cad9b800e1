"""The text in HTML pages and in notebooks."""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

from settings.errors import DataError

NOT_TEXT = ("script", "style", "template")
PARAGRAPHS = (
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "ul", "ol", "dl", "table", "section", "article",
    "figure", "hr", "title",
)
LINES = (
    "address", "aside", "body", "caption", "center", "dd", "details", "dialog", "div", "dt", "fieldset", "figcaption",
    "footer", "form", "head", "header", "html", "legend", "li", "main", "nav", "option", "select", "summary", "tbody",
    "textarea", "tfoot", "thead", "tr",
)
CELLS = ("td", "th")
LONGEST_TAG = 1 << 24  # characters of a tag, a comment or a script
FED = 1 << 12  # characters read at once, or as many as an unfinished tag has: the parser reads it again with each part
MOST_IN_TAG = 50  # of the sign "<": with more, it is no tag, and the parser's time grows with their square
SPACE = re.compile(r"[ \t\n\r\f]+")


class _Page(HTMLParser):
    """Collects the text of a page in `pieces`. White space is one blank, but in pre."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.skipped = self.preformatted = 0
        self.blank = False  # whether white space was read that is not written yet
        self.newlines = 2  # at the end of what is written; a page begins like a paragraph

    def handle_starttag(self, tag: str, attributes) -> None:
        self.skipped += tag in NOT_TEXT
        self.separate(tag)
        self.preformatted += tag == "pre"
        if tag == "br":
            self.write("\n")

    def handle_endtag(self, tag: str) -> None:
        self.skipped = max(0, self.skipped - (tag in NOT_TEXT))
        self.preformatted = max(0, self.preformatted - (tag == "pre"))
        self.separate(tag)

    def handle_data(self, data: str) -> None:
        if self.skipped:
            return
        if self.preformatted:
            self.write(data)
            return
        text = SPACE.sub(" ", data)
        words = text.strip(" ")
        if words and (self.blank or text.startswith(" ")) and not self.newlines:
            words = f" {words}"
        self.blank = text.endswith(" ") or (self.blank and not words)
        self.write(words)

    def separate(self, tag: str) -> None:
        """Begins a new paragraph, a new line or a new word, where the tag does so."""
        wanted = 2 if tag in PARAGRAPHS else tag in LINES
        self.blank = not wanted and (self.blank or tag in CELLS)
        self.write("\n" * (wanted - self.newlines))

    def is_unfinished(self) -> bool:
        """Whether a tag or a comment of more than FED characters has begun and not ended."""
        return len(self.rawdata) > FED and self.rawdata.startswith("<") and not self.cdata_elem

    def is_endless(self) -> bool:
        """Whether what is unfinished can't be a tag, a comment or a script."""
        is_tag = self.is_unfinished() and not self.rawdata.startswith("<!")
        return len(self.rawdata) > LONGEST_TAG or (is_tag and self.rawdata.count("<") > MOST_IN_TAG)

    def write(self, text: str) -> None:
        if text:
            self.pieces.append(text)
            ending = len(text) - len(text.rstrip("\n"))
            self.newlines = ending + (self.newlines if ending == len(text) else 0)


def html_text(blocks: Iterable[str], name: str) -> Iterator[str]:
    """The text of an HTML page that comes in blocks: without tags, scripts and styles, entities resolved.

    Paragraphs are separated by a blank line; other block elements, such as list items and rows, have their own lines.
    Raises DataError for a tag or a comment that does not end.
    """
    page = _Page()
    for block in blocks:
        start = 0
        while start < len(block):
            part = block[start : start + max(FED, len(page.rawdata))]
            page.feed(part)
            start += len(part)
            if page.is_endless():
                raise DataError(f"{name} has a tag or a comment that does not end: mend the page, or leave it out")
        yield "".join(page.pieces)
        page.pieces.clear()
    if page.is_unfinished():
        raise DataError(f"{name} ends within a tag or a comment: mend the page, or leave it out")
    page.close()
    yield "".join(page.pieces)


def notebook_text(text: str, name: str) -> str:
    """The Markdown and code cells of a notebook's JSON, a blank line between them; outputs are left out.

    Raises DataError for what is no notebook.
    """
    import nbformat

    try:
        notebook = nbformat.reader.reads(text)
        if nbformat.reader.get_version(notebook)[0] < 4:
            notebook = nbformat.convert(notebook, 4)
        cells = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] in ("markdown", "code")]
        sources = ["".join(source) for source in cells]  # a text, or a list of lines
    except Exception as error:  # nbformat raises errors of many types
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"can't read {name}: it is no notebook ({reason}). Save it again, or leave it out") from error
    return "\n\n".join(source.rstrip("\n") for source in sources if source.strip())
