"""How the bytes of a text file become characters: by its byte order mark, by what is given or declared, or as UTF-8."""

import codecs
import re

BYTE_ORDER_MARKS = {  # UTF-32 before UTF-16: its mark begins with the other's
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}
HEAD = 1024  # bytes in which a file declares its encoding
DECLARED = {
    ".py": re.compile(rb"\A(?:[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*([-\w.]+)"),  # PEP 263: in the first two lines
    ".html": re.compile(rb"<meta[^>]{1,200}charset=[\"']?\s*([-\w]+)", re.IGNORECASE),
}
SAMPLE = 20_000  # bytes from which an encoding is guessed
SHOWN = 60  # characters of a guess that a message shows
USUAL = (  # of equally likely ones, the first
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1257", "koi8_r", "cp932", "euc_jp", "gb18030", "big5",
    "cp949", "mac_roman", "cp437",
)
MOST_NAMED = 3  # guesses in a message


def encoding_of(head: bytes, kind: str, given: str | None) -> str:
    """The encoding of a file that begins with `head`; kind: its suffix, such as ".html".

    A byte order mark says it for certain. Without one it is the encoding given, or else the one that a Python file or
    an HTML page declares, or else UTF-8.
    """
    for mark, name in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return name
    return given or _declared(head, kind) or "utf-8"


def _declared(head: bytes, kind: str) -> str | None:
    found = DECLARED[kind].search(head[:HEAD]) if kind in DECLARED else None
    try:
        name = codecs.lookup(found[1].decode("ascii")).name if found else None
    except (LookupError, UnicodeDecodeError):
        return None
    if kind == ".html":  # as browsers read it: what is called Latin-1 is Windows' form of it
        name = {"iso8859-1": "cp1252", "ascii": "cp1252", "utf-16": None}.get(name, name)
    return name


def plain_name(encoding: str) -> str:
    """An encoding's name for people: "UTF-8"."""
    return {"utf-8-sig": "UTF-8 with a byte order mark"}.get(encoding, re.sub("(?i)^utf[-_]?", "UTF-", encoding))


def guess_remedy(block: bytes, place: int) -> str:
    """What to do about a byte that is not UTF-8, at `place` of the block: a sentence that names likely encodings."""
    start = max(block.rfind(b"\n", 0, place) + 1, place - SHOWN // 2)
    told = []
    for name in _likely(block[start : start + SAMPLE])[:MOST_NAMED]:
        text = " ".join(block[start : start + 4 * SHOWN].decode(name, errors="replace")[:SHOWN].split())
        told.append(f"encoding={name!r}, which reads {text!r}")
    if not told:
        return "Give a text file, or save it as UTF-8"
    return f"Save it as UTF-8, or give the encoding whose text reads right: {'; or '.join(told)}"


def _likely(sample: bytes) -> list[str]:
    """Encodings in which the sample looks like text, the likeliest first."""
    from charset_normalizer import from_bytes

    found = []
    for match in from_bytes(sample, cp_isolation=list(USUAL), preemptive_behaviour=False):
        names = [USUAL.index(name) for name in match.could_be_from_charset if name in USUAL]  # they give the same text
        if names:
            found.append((match.chaos, -match.coherence, min(names)))
    return [USUAL[number] for _, _, number in sorted(found)]


def nul_remedy(block: bytes) -> str:
    """What to do about NUL bytes: every second byte is NUL where UTF-16 is without its mark."""
    pairs = max(1, len(block[:SAMPLE]) // 2)
    even, odd = (block[start:SAMPLE:2].count(0) / pairs for start in (0, 1))
    for name, many, few in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if many > 0.3 and few < 0.05:
            return f"It looks like UTF-16 without its byte order mark: give encoding={name!r}, or save it as UTF-8"
    return "Give a text file, or save it as UTF-8"
