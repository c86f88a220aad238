"""The strings whose token ids are compared: the same ones at every run."""

import html.entities
import random
import unicodedata
from collections.abc import Iterator

from nasty import NASTY

# Blocks of letters, marks and digits. A character counts only where Python's Unicode knows it.
SCRIPTS = {
    "Latin": [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)],
    "Greek": [(0x370, 0x3FF), (0x1F00, 0x1FFF)],
    "Cyrillic": [(0x400, 0x52F)],
    "Armenian": [(0x531, 0x58F)],
    "Georgian": [(0x10A0, 0x10FF), (0x1C90, 0x1CBF), (0x2D00, 0x2D2F)],
    "Cherokee": [(0x13A0, 0x13FF), (0xAB70, 0xABBF)],
    "Hebrew": [(0x591, 0x5F4), (0xFB1D, 0xFB4F)],
    "Arabic": [(0x600, 0x6FF), (0x750, 0x77F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)],
    "Syriac": [(0x700, 0x74F)],
    "Devanagari": [(0x900, 0x97F)],
    "Bengali": [(0x980, 0x9FF)],
    "Tamil": [(0xB80, 0xBFF)],
    "Thai": [(0xE00, 0xE7F)],
    "Tibetan": [(0xF00, 0xFFF)],
    "Burmese": [(0x1000, 0x109F)],
    "Ethiopic": [(0x1200, 0x137F)],
    "Khmer": [(0x1780, 0x17FF)],
    "Mongolian": [(0x1800, 0x18AA)],
    "Hangul": [(0x1100, 0x11FF), (0x3131, 0x318E), (0xAC00, 0xD7A3)],
    "Kana": [(0x3041, 0x30FF), (0x31F0, 0x31FF)],
    "Han": [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAD9), (0x20000, 0x2A6DF)],
    "Deseret": [(0x10400, 0x1044F)],
    "Adlam": [(0x1E900, 0x1E959)],
    "Coptic": [(0x2C80, 0x2CFF)],
    "mathematical": [(0x1D400, 0x1D7FF)],
}
WORDS = (
    "a the photo of dog cat red bicycle man woman sitting on beach sunset mountain old car black white two people playing"
    " football in rain it's don't we'll they've I'm you're he'd Rock 'n' roll's close-up view painting illustration logo"
    " 3d render 4k hdr New York Eiffel Tower café naïve jalapeño über Straße İstanbul ŒUVRE résumé façade"
).split()
PUNCTUATION = "!?.,;:-_()[]{}#@*/\\|~^+=%$\"'`<>&"
QUOTES = "'\"‘’‚‛“”„‟«»‹›′″ʼ`´＇＂「」"
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
INVISIBLE = "\0\x01\x08\x0b\x0e\x1b\x1c\x1f\x7f\x80\x92\x9f\xad\u200b\u200c\u200d\u200e\u202a\u2060\u206a\ufeff\ufff9\ufffc\ufffd\ufe0f"
EMOJI = "😀🐈🐕🦄🎸🚲🏔❤☂✈👍👩👨👧🏽🏿🇩🇪🇯🇵1️⃣⃣🧑🏳🌈🔥\u200d\ufe0f"
FAMILIES = ("👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🧑🏿‍🚀", "🇩🇪", "1️⃣", "❤️‍🔥", "🐈‍⬛", "🏴󠁧󠁢󠁷󠁬󠁳󠁿", "👁️‍🗨️")
MARKS = "".join(chr(code) for code in (*range(0x300, 0x370), 0x3099, 0x309A, *range(0x20D0, 0x20F1), *range(0x1DC0, 0x1DF6)))
WRONG_ENCODINGS = ("latin-1", "cp1252", "cp1251", "mac_roman", "cp437")


def every() -> Iterator[tuple[str, str]]:
    """Every string, each with its kind."""
    for text in NASTY:
        yield "nasty", text
    for kind, count, generate in KINDS:
        source = random.Random(kind)
        for _ in range(count):
            yield kind, generate(source)
    yield from census()
    yield from entity_names()


def census() -> Iterator[tuple[str, str]]:
    """Every assigned character once, in groups of twelve; of Han and Hangul every fortieth."""
    group = ""
    for code in range(0x20000):
        character = chr(code)
        if unicodedata.category(character) in ("Cn", "Cs", "Co"):
            continue
        if (0x3400 <= code <= 0x9FFF or 0xAC00 <= code <= 0xD7A3 or 0x17000 <= code <= 0x18CFF) and code % 40:
            continue
        group += character
        if len(group) == 12:
            yield "census", " ".join(group) if code % 2 else group
            group = ""
    yield "census", group


def entity_names() -> Iterator[tuple[str, str]]:
    """Every name that HTML knows: as it is, in capitals, and without its semicolon inside a word."""
    for name in sorted(html.entities.html5):
        bare = name.rstrip(";")
        yield "entity names", f"a &{name} b &{bare.upper()}; &{bare}x"


def words(source: random.Random, least: int, most: int) -> list[str]:
    return [source.choice((str, str.upper, str.title, str))(source.choice(WORDS)) for _ in range(source.randint(least, most))]


def caption(source: random.Random) -> str:
    return " ".join(word + source.choice(("", "", "", ",", ".", "!", "...")) for word in words(source, 1, 12))


def long_caption(source: random.Random) -> str:
    return source.choice((" ", "  ", "\n", ", ")).join(words(source, 60, 120))


def script(source: random.Random) -> str:
    letters = source.choice(list(LETTERS.values()))
    return " ".join("".join(source.choices(letters, k=source.randint(1, 8))) for _ in range(source.randint(1, 4)))


def scripts(source: random.Random) -> str:
    return "".join(source.choice(source.choice(list(LETTERS.values()))) + source.choice(("", "", " ", ".", "'")) for _ in range(source.randint(1, 14)))


def ascii_noise(source: random.Random) -> str:
    return "".join(chr(source.randint(32, 126)) for _ in range(source.randint(1, 40)))


def quotes(source: random.Random) -> str:
    return " ".join(source.choice(QUOTES) + word + source.choice(QUOTES) + source.choice(("s", "t", "re", "S", "")) for word in words(source, 1, 5))


def entities(source: random.Random) -> str:
    names = ("amp", "lt", "gt", "quot", "nbsp", "eacute", "Eacute", "EACUTE", "copy", "hellip", "rsquo", "NotEqualTilde", "SZLIG", "semi", "num", "fflig")

    def number() -> int:
        code = source.choice((source.randint(0, 0x400), source.randint(0, 0x20000), source.randint(0x10FFF0, 0x110010)))
        # Which unassigned characters will be letters depends on the version of Unicode.
        return code if code > 0x10FFFF or unicodedata.category(chr(code)) != "Cn" or code & 0xFFFE == 0xFFFE else 0x2603

    def entity() -> str:
        form = source.randrange(5)
        if form == 0:
            return f"&#{number()}{source.choice((';', ';', ''))}"
        if form == 1:
            return f"&#{source.choice('xX')}{number():x}{source.choice((';', ';', ''))}"
        nested = "amp;" * source.choice((0, 0, 0, 1, 2, 3))
        return f"&{nested}{source.choice(names)}{source.choice((';', ';', ';', '', 'x;'))}"

    return "".join(source.choice((entity(), entity(), source.choice(WORDS), " ", "<b>" if source.random() < 0.2 else " ", "\n")) for _ in range(source.randint(1, 9)))


def emoji(source: random.Random) -> str:
    return "".join(source.choice((source.choice(EMOJI), source.choice(FAMILIES), source.choice(WORDS), " ")) for _ in range(source.randint(1, 8)))


def invisible(source: random.Random) -> str:
    escapes = ("\x1b[0m", "\x1b[1;31m", "\x1b[", "\x1b[2K", "\x1b]0;")
    return "".join(source.choice((source.choice(INVISIBLE), source.choice(WORDS), source.choice(SPACES), source.choice(escapes))) for _ in range(source.randint(1, 10)))


def spaces(source: random.Random) -> str:
    return "".join(word + "".join(source.choices(SPACES, k=source.randint(0, 3))) for word in ["", *words(source, 0, 6)])


def combining(source: random.Random) -> str:
    letters = "aeiouAEIOUnNsScC<>=ΑΩаиかハ한ᄒ가 "
    return "".join(source.choice(letters) + "".join(source.choices(MARKS, k=source.randint(0, 3))) for _ in range(source.randint(1, 10)))


def widths(source: random.Random) -> str:
    return "".join(source.choice((chr(source.randint(0xFF01, 0xFFEE)), chr(source.randint(0xFF61, 0xFF9F)), chr(source.randint(0xFB00, 0xFB06)), chr(source.randint(0x1C4, 0x1CC)), source.choice(WORDS), " ")) for _ in range(source.randint(1, 10)))


def address(source: random.Random) -> str:
    host = source.choice(("https://www.example.com", "http://例え.テスト", "ftp://user:pa%20ss@host:21", "WWW.EXAMPLE.ORG", "name+tag@example.co.uk"))
    return f"{host}/{source.choice(WORDS)}?q={source.randint(0, 10**9)}&{source.choice(('lang', 'copy', 'amp', 'para'))}={source.choice(WORDS)}#{source.choice(WORDS)}"


def numbers(source: random.Random) -> str:
    digits = ("0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "ⅠⅡⅣⅫⅷ", "½¼¾²³①⑩", "一二三十百")
    return " ".join("".join(source.choices(source.choice(digits), k=source.randint(1, 6))) + source.choice(("", "%", "€", "st", ".5", "-", "/")) for _ in range(source.randint(1, 6)))


def final_sigma(source: random.Random) -> str:
    return "".join(source.choice("ΣΣΣΑΟςσ'.·\xad\u0301\u200d -1aA") for _ in range(source.randint(1, 12)))


def mojibake(source: random.Random) -> str:
    text = source.choice(("café", "naïve über", "“quoted”", "it’s", "…", "日本語", "Привет", "😀", "élève à la mode", "£5 – €7"))
    try:
        return text.encode().decode(source.choice(WRONG_ENCODINGS)) + source.choice(("", " photo", " é"))
    except UnicodeDecodeError:
        return text.encode().decode("latin-1")


def special(source: random.Random) -> str:
    tokens = ("<|endoftext|>", "<|startoftext|>", "<|EndOfText|>", "<|ENDOFTEXT|>", "<end_of_text>", "<|endoftext", "endoftext|>", "&lt;|endoftext|&gt;", "＜｜endoftext｜＞")
    return "".join(source.choice((source.choice(tokens), source.choice(WORDS), " ")) for _ in range(source.randint(1, 6)))


LETTERS = {
    name: [
        chr(code)
        for first, last in blocks
        for code in range(first, last + 1)
        if unicodedata.category(chr(code))[0] in "LMN"
    ]
    for name, blocks in SCRIPTS.items()
}
KINDS = (
    ("caption", 1500, caption),
    ("long caption", 200, long_caption),
    ("one script", 4000, script),
    ("mixed scripts", 1500, scripts),
    ("ASCII noise", 2000, ascii_noise),
    ("quotes", 800, quotes),
    ("entities", 2000, entities),
    ("emoji", 800, emoji),
    ("control characters", 800, invisible),
    ("white space", 600, spaces),
    ("combining marks", 800, combining),
    ("ligatures and widths", 600, widths),
    ("addresses", 300, address),
    ("numbers", 600, numbers),
    ("final sigma", 500, final_sigma),
    ("mojibake", 300, mojibake),
    ("special tokens", 200, special),
)
