"""Compiles java.util.regex patterns for Python's re; rejects patterns that would match differently.

Hand-written, because no known library translates these patterns.
"""

from __future__ import annotations

import functools
import re

from opensearch_batch.core.errors import ConfigError

# Tokens to translate or check: escaped characters, classes, the start of a named group, and the dot.
_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*(?:\]|\Z)|\(\?<(?=[A-Za-z])|\.", re.DOTALL)
_IN_CLASS = re.compile(r"\\.|\[|&&|--|~~|\|\|", re.DOTALL)
_ANY_OF_LINE = r"[^\n\r\u0085\u2028\u2029]"
_DOT_IS_ANY = re.compile(r"\(\?[a-z]*s")


@functools.lru_cache(maxsize=256)
def compile_java_pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern for `fullmatch`; raise ConfigError if Python cannot match it as Java does."""
    any_char = "." if _DOT_IS_ANY.search(text) else _ANY_OF_LINE

    def translated(part: re.Match[str]) -> str:
        element = part[0]
        if element == ".":
            return any_char
        if element.startswith("["):
            _check_class(text, element)
        return "(?P<" if element == "(?<" else element

    try:
        # Without flags, Java's \\w, \\d and \\s match ASCII only.
        return re.compile(_PART.sub(translated, text), re.ASCII)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"the pattern {text!r} is not supported: {error}; write a simpler pattern") from None


def _check_class(text: str, character_class: str) -> None:
    # Python warns about these characters and interprets them differently from Java.
    for part in _IN_CLASS.finditer(character_class, 1):
        if part[0][0] != "\\":
            raise ConfigError(
                f"the class {character_class!r} in the pattern {text!r} contains {part[0]!r}, which Python and Java "
                "interpret differently; write one simple class, with a backslash before this character"
            )
