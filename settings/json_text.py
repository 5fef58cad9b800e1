"""JSON and Unicode as they come from files that anybody may have written."""

import json

from settings.errors import ConfigError


def parse_json(text: str):
    """The value that JSON text holds. Raises ConfigError where it is no JSON, nests too deep or holds no Unicode."""
    try:
        value = json.loads(text)
        written = json.dumps(value, ensure_ascii=False)
    except ValueError as error:
        raise ConfigError(f"not valid JSON ({error})") from error
    except RecursionError as error:
        raise ConfigError("not valid JSON: it nests too deep") from error
    if not is_unicode(written):
        raise ConfigError("not valid JSON: a text in it holds half of a surrogate pair, as in \\ud800")
    return value


def is_unicode(text: str) -> bool:
    """Whether the text can be written to a file: half of a surrogate pair can't."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
