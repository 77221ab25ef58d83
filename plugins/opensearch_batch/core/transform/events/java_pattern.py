"""A pattern matches as java.util.regex would, or it is refused: Python's re reads most of them alike, not all.

Hand-written: no library was found that translates one into the other.
"""

from __future__ import annotations

import functools
import re

from opensearch_batch.core.errors import ConfigError

# Escaped characters, classes, the start of named groups, and the dot are what the two write or read differently.
_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*(?:\]|\Z)|\(\?<(?=[A-Za-z])|\.", re.DOTALL)
_IN_CLASS = re.compile(r"\\.|\[|&&|--|~~|\|\|", re.DOTALL)
_ANY_OF_LINE = r"[^\n\r\u0085\u2028\u2029]"
_DOT_IS_ANY = re.compile(r"\(\?[a-z]*s")


@functools.lru_cache(maxsize=256)
def compile_java_pattern(text: str) -> re.Pattern[str]:
    """Return a pattern for `fullmatch`.

    Raises:
        ConfigError: it is no pattern, or one that Python cannot match.
    """
    any_char = "." if _DOT_IS_ANY.search(text) else _ANY_OF_LINE

    def translated(part: re.Match[str]) -> str:
        found = part[0]
        if found == ".":
            return any_char
        if found.startswith("["):
            _check_class(text, found)
        return "(?P<" if found == "(?<" else found

    try:
        # Java's letters, digits and spaces are those of ASCII unless a flag says otherwise.
        return re.compile(_PART.sub(translated, text), re.ASCII)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"the pattern {text!r} cannot be matched: {error}; write it in a simpler way") from None


def _check_class(text: str, found: str) -> None:
    # Python would warn of these, and read them in another way than Java.
    for part in _IN_CLASS.finditer(found, 1):
        if part[0][0] != "\\":
            raise ConfigError(
                f"the class {found!r} of the pattern {text!r} holds {part[0]!r}, which means a set of sets; "
                "write one plain class, with a backslash before such a sign"
            )
