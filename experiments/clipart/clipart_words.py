"""What an openclipart SVG says of itself, and the captions that can be made of it.

The files are untrusted and were filled in by hundreds of people: titles that name a whole collection, e-mail addresses
as descriptions, keywords for the archive's own use. What survives is plain lower-case English, Italian, French, ...
"""

import html
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from xml.parsers import expat

MAX_XML_BYTES = 20_000_000

CONTACT = re.compile(r"\S+@\S+|https?:|www\.|\S+\.(com|org|net|de|fr|it|no)\b", re.I)
FILE_ENDING = re.compile(r"\.(svg|png|jpe?g|gif|eps|wmf|ai)\b", re.I)
BLACK_AND_WHITE = re.compile(r"\(?\bb\s*(and|&|/|n)?\s*w\b\)?", re.I)
# A description with one of these speaks of the file, its author or its making, not of what is seen.
ABOUT_THE_FILE = re.compile(
    r"inkscape|sodipodi|illustrator|clip\s?art|public domain|licen[sc]e|copyright|\bsvg\b|\beps\b|hash\(|\bfile\b"
    r"|\b(made|created?|drawn|designed|converted|traced|autotraced|edited|contributed|submission|sibmission|submitted"
    r"|download|enjoy|collection|vectori[sz]ed|photoshop|gimp|blender|wikipedia|package"
    r"|author|contact|version|printing|vectori[sz]ation|based on|based in|derived from)\b"
    r"|\b(i|my|me|we|our|you|your)\b",
    re.I,
)


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


NO_TITLE = _set("untitled unnamed drawing image picture test title clipart new none nothing various")
SHORT_NAMES = _set("tv wc cd pc dvd lp ox")
ADMIN_KEYWORDS = _set(
    "hash clip art clipart externalsource unsorted icon icons symbol symbols sign signs shape shapes special stock "
    "mimeicon mimetypes appicon svg openclipart miscellany image picture drawing vector inkscape subnational ebay menu "
    "theme imported recreation work activity activities creation ideas study politic"
) | {"united nations member", "signs and symbols", "clip art"}
KEYWORD_NAMES = {
    "mapsym": "map symbol",
    "weathersym": "weather symbol",
    "musicsym": "music symbol",
    "networksym": "network symbol",
    "mathsymbol": "mathematics",
    "signalflag": "signal flag",
    "roadsign": "road sign",
    "roadtravel": "road travel",
    "airtravel": "air travel",
    "musicstuff": "music",
    "bodypart": "body part",
    "icecream": "ice cream",
    "religholiday": "religious holiday",
    "unitedstates": "united states",
    "northamerica": "north america",
    "latinamerica": "latin america",
    "arrowshape": "arrow",
    "stickmen": "stick man",
    "vegitable": "vegetable",
    "cartooon": "cartoon",
    "bullethole": "bullet hole",
    "noze": "nose",
    "imformation": "information",
    "flags": "flag",
}


@dataclass(frozen=True)
class Metadata:
    """What an SVG file says of itself, as written."""

    title: str = ""
    description: str = ""
    keywords: tuple[str, ...] = ()
    creator: str = ""
    linked: bool = False  # shows a picture that is not in the file: rendered as "Linked Image Not Found"


@dataclass(frozen=True)
class Corpus:
    """What only the whole archive tells: which words are shared, and by how many drawings."""

    collections: Collection[str]  # titles of so many drawings that they name a collection, not a drawing
    generic: Collection[str]  # descriptions of several drawings
    people: Collection[str]  # authors, lower case
    frequency: Counter  # drawings per keyword

    @classmethod
    def of(cls, records: Sequence[Metadata], collection: int = 10, generic: int = 4) -> "Corpus":
        """`collection`, `generic`: from how many drawings on a title, a description counts as shared."""
        titles = Counter(m.title for m in records)
        descriptions = Counter(m.description for m in records)
        return cls(
            collections={title for title, count in titles.items() if count >= collection},
            generic={text for text, count in descriptions.items() if count >= generic},
            people={m.creator.lower() for m in records},
            frequency=Counter(word for m in records for word in set(split_keywords(m))),
        )


class UnsafeXML(ValueError):  # noqa: N818, it names the file, not a failure of ours
    """XML that declares entities, is too large or is not well-formed."""


def read_metadata(data: bytes) -> Metadata:
    """Reads an untrusted SVG file. Entities (XML bombs, other files) are refused, and nothing is fetched."""
    if len(data) > MAX_XML_BYTES:
        raise UnsafeXML("too large")
    path, texts = [], []
    found = {"title": "", "description": "", "creator": ""}
    keywords, linked = [], False

    def start(name, attributes):
        nonlocal linked
        path.append(name.rpartition(":")[2])
        texts.append([])
        if path[-1] == "image":
            linked |= not attributes.get("xlink:href", "data:").strip().startswith("data:")

    def end(_):
        text = " ".join("".join(texts.pop()).split())
        match path:
            case [*_, "Work", ("title" | "description") as name]:
                found[name] = found[name] or text
            case [*_, "creator", "Agent", "title"]:
                found["creator"] = found["creator"] or text
            case [*_, "subject", "Bag", "li"] if text:
                keywords.append(text)
        path.pop()

    def refuse(*_):
        raise UnsafeXML("declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)
    parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the latter two: an encoding nobody knows
        if isinstance(error, UnsafeXML):
            raise
        raise UnsafeXML("not well-formed") from error
    return Metadata(**found, keywords=tuple(keywords), linked=linked)


def captions_of(metadata: Metadata, stem: str, corpus: Corpus) -> tuple[str, ...]:
    """Zero to three captions: the title; title and keywords; title and description. None without a title.

    stem: the file's name without folder and ending.
    """
    title = title_of(metadata, stem, corpus)
    if not title:
        return ()
    captions = [title]
    if keywords := keywords_of(metadata, title, corpus):
        captions.append(", ".join((title, *keywords[:3])))
    if description := description_of(metadata, title, corpus):
        whole = _stems(title) <= _stems(plain_words(description))
        captions.append(description if whole else f"{title}, {description}")
    return tuple(dict.fromkeys(captions))


def word_count(captions: Sequence[str]) -> int:
    """Different words in all captions of a drawing, singular and plural taken together."""
    return len(set().union(*(_stems(plain_words(caption)) for caption in captions)))


def title_of(metadata: Metadata, stem: str, corpus: Corpus) -> str:
    """What is drawn, in at most twelve words, or '' if nothing usable is known.

    The title; if it is missing, names nothing, or names a whole collection, the file's name without its author.
    """
    raw = metadata.title
    own = raw not in corpus.collections and not CONTACT.search(raw) and not re.match(r"clip-?art by ", raw, re.I)
    author = plain_words(metadata.creator)
    for text in (raw if own else "", words_of_file(stem, metadata.creator)):
        words = plain_words(text)
        if words == author:
            continue
        if " " in author:
            words = " ".join(words.replace(author, "").split())
        named = re.search(r"[^\W\d]{3}", words) or words in SHORT_NAMES
        if named and not set(words.split()) <= NO_TITLE:
            return " ".join(words.split()[:12])
    return ""


def plain_words(text: str) -> str:
    """Lower-case words of a title or a file name: no markup, file endings, serial numbers; "bw" is written out."""
    text = FILE_ENDING.sub("", html.unescape(html.unescape(text)))
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])|_", " ", text)
    text = BLACK_AND_WHITE.sub(" black and white ", text).replace("&", " and ").replace("+", " and ").lower()
    text = re.sub(r"\b\d+ symbol \d+m.*|\brpg map elements?\b|#\d+", " ", text)
    text = re.sub(r"[^\w\s']|_", " ", text).replace("'", "")
    text = re.sub(r"\b([^\W\d]{3,})\d+\b", r"\1", text)  # bus2 -> bus, but m16 stays
    text = " ".join(re.sub(r"\b(clip ?art|svg)\b", " ", text).split())
    text = re.sub(r"(?<=\w) by (?!the |an? )\w+( \w+)?$", "", text)  # its author
    return re.sub(r"( (0\d+|[12]?\d|[a-z]|v\d+))+$", "", text)  # house 02 -> house, but route 66 stays


def words_of_file(stem: str, creator: str) -> str:
    """'cavallo_architetto_franc_07' by 'Architetto Francesco Rollandin' -> 'cavallo'."""
    stem = re.sub(r"_(\d+[a-z]?|[a-z])?$", "", stem).removeprefix("aiga_").removesuffix("_ganson")
    author = re.sub(r"\W+", "_", creator.lower()).strip("_")
    for found in re.finditer("_+", stem):
        rest = re.sub(r"\W+", "_", stem[found.end() :].lower()).rstrip("_0123456789")
        if len(rest) >= 3 and author.startswith(rest):
            return stem[: found.start()]
    return stem


def keywords_of(metadata: Metadata, title: str, corpus: Corpus) -> list[str]:
    """Keywords that say something the title does not: those that other drawings share first, the rarer the better."""
    known = _stems(title)
    kept = []
    for keyword in sorted(split_keywords(metadata), key=lambda k: (corpus.frequency[k] < 3, corpus.frequency[k], k)):
        words = keyword.replace("-", " ")
        if keyword in ADMIN_KEYWORDS or keyword in corpus.people or CONTACT.search(keyword):
            continue
        if not re.fullmatch(r"[^\W\d_]{3,16}( [^\W\d_]{2,16}){0,2}", words):
            continue
        if _stems(words) <= known or words.replace(" ", "") in title.replace(" ", ""):
            continue
        known |= _stems(words)
        kept.append(keyword)
    return kept


def split_keywords(metadata: Metadata) -> list[str]:
    """The keywords in lower case, underscores and the archive's abbreviations written out."""
    words = (word.strip().lower() for text in metadata.keywords for word in html.unescape(text).split(","))
    return [KEYWORD_NAMES.get(word, word.replace("_", " ")) for word in words if word]


def description_of(metadata: Metadata, title: str, corpus: Corpus) -> str:
    """The first sentence of the description if it is a real one about what is seen and adds to the title, else ''."""
    text = html.unescape(html.unescape(metadata.description)).strip()
    if metadata.description in corpus.generic or CONTACT.search(text):
        return ""
    sentence = re.split(r"(?<=[.!?;])\s|\s--|\(", text)[0].rstrip(" .!?;,:")
    if ABOUT_THE_FILE.search(sentence) or FILE_ENDING.search(sentence):
        return ""
    sentence = re.sub(r"^(this|here) is\s+|^it'?s\s+", "", " ".join(sentence.lower().split()))
    words = plain_words(sentence).split()
    new = _stems(" ".join(words)) - _stems(title) - {"a", "an", "the", "of"}
    return sentence if 3 <= len(words) <= 25 and len(new) >= 2 else ""


def family(title: str) -> str:
    """What the titles of variants share: 'big house black and white' and 'big house 2' are one family."""
    return " ".join(_stem(word) for word in re.sub(r"black and white|\d+", " ", title).split())


def _stems(text: str) -> set[str]:
    return set(map(_stem, text.split()))


def _stem(word: str) -> str:
    return word[:-1] if word.endswith("s") and len(word) > 3 else word
