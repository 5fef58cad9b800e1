"""What goes wrong between here and the Hugging Face hub, as one DataError each: what happened and what to do.

huggingface_hub tries each request of a file six times: for statuses 408, 429, 500, 502, 503 and 504, for time-outs and
for dropped connections. It waits 1, 2, 4, 8 and 8 seconds between, or as long as Retry-After says. `datasets` reads
a part of a file again on top of that. Neither tries the questions again that come before the first file: which commit,
which files, which columns. `patiently` does so.
"""

import errno
from collections.abc import Callable, Iterator
from time import sleep
from typing import TypeVar

from settings.errors import DataError, GlassboxError

TRIES = 4  # of a question that the hub answers by "later", or not in time
LONGEST_WAIT = 120.0  # seconds that Retry-After can ask for
LATER = (408, 429, 500, 502, 503, 504)
OFFLINE_WORKS = (
    "Without a network there are tales, pydocs and pycode, and your own files: --train.data.source my-text.txt. "
    "With one, look at HF_HUB_OFFLINE, HF_ENDPOINT and your proxy's settings"
)

T = TypeVar("T")


def patiently(ask: Callable[[], T]) -> T:
    """The answer. Asks up to TRIES times where the hub is busy or slow, and once where it can't be reached."""
    for attempt in range(TRIES - 1):
        try:
            return ask()
        except Exception as error:
            wait = seconds_to_wait(error, attempt)
            if wait is None:
                raise
        sleep(wait)
    return ask()


def seconds_to_wait(error: BaseException, attempt: int) -> float | None:
    """How long to wait before the next try; None where another try would not help."""
    for cause in causes(error):
        if is_slow(cause):
            return 2.0**attempt
        if status_of(cause) in LATER:
            asked = cause.response.headers.get("Retry-After", "")
            return min(float(asked), LONGEST_WAIT) if asked.isdigit() else 2.0**attempt
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from or while."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def names(error: BaseException) -> set[str]:
    """The names of the error's classes: those of the HTTP library differ between versions by their module alone."""
    return {cls.__name__ for cls in type(error).__mro__}


def status_of(error: BaseException) -> int | None:
    """The status with which the hub answered; None where it did not answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_slow(error: BaseException) -> bool:
    found = names(error)
    return bool(found & {"ReadTimeout", "WriteTimeout", "PoolTimeout", "RemoteProtocolError", "ReadError"})


def is_unreachable(error: BaseException) -> bool:
    return bool(names(error) & {"OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ProxyError"})


def explain(error: Exception, where: str, repo: str, done: str = "") -> GlassboxError:
    """The error in words, with its remedy. where: the set, and what was asked of it. done: how far the reading got."""
    if isinstance(error, GlassboxError):
        return error
    found = list(causes(error))
    kinds = set().union(*map(names, found))
    page, got = f"https://huggingface.co/datasets/{repo}", f" {done}" if done else ""
    status = next(filter(None, map(status_of, found)), 0)
    reason = next((text for one in found if (text := " ".join(str(one).split())[:300])), type(error).__name__)
    if any(getattr(one, "errno", None) == errno.ENOSPC for one in found):
        return DataError(
            f"{where}: the disk is full.{got} Make room, or name folders elsewhere in the environment variables "
            "HF_HOME (what is downloaded) and GLASSBOX_CACHE (the tokens)"
        )
    if "GatedRepoError" in kinds or status == 403 or "gated dataset" in reason:
        return DataError(
            f"{where} is gated: its owners let in only those who have asked. Ask on {page}, then log in by "
            "`hf auth login`, or set HF_TOKEN"
        )
    if "RevisionNotFoundError" in kinds or reason.startswith("Revision "):
        return DataError(f"{where}: the hub has no such revision (any more). Those it has are on {page}/commits/main")
    if "RepositoryNotFoundError" in kinds or "doesn't exist on the Hub" in reason:
        return DataError(
            f"{where}: the hub has no such set, or it is private. Look for its name, owner/name, on "
            "https://huggingface.co/datasets; for a private one log in by `hf auth login`, or set HF_TOKEN"
        )
    if "BatchSize must be greater than 0" in reason:  # what `datasets` says of a group of rows that is empty
        return DataError(f"{where} has no rows in one of its files: choose another split, or look on {page}")
    if "scripts are no longer supported" in reason:
        return DataError(f"{where} is made by a script, and no set's code is run: choose one of parquet or jsonl files")
    if kinds & {"DataFilesNotFoundError", "EmptyDatasetError", "EntryNotFoundError"}:
        return DataError(f"{where} holds no files that can be read as text ({reason}); look on {page}")
    if any(map(is_unreachable, found)):
        lost = "the connection to" if got else "can't reach"
        return DataError(f"{where}: {lost} the Hugging Face hub{' is lost' if got else ''}.{got} {OFFLINE_WORKS}")
    if status == 429:
        return DataError(
            f"{where}: the hub lets nobody ask so often (status 429).{got} Wait some minutes, or log in by "
            "`hf auth login`, which allows more"
        )
    if status >= 500 or any(map(is_slow, found)) or kinds & {"ConnectionError", "TimeoutError", "HTTPError"}:
        what = f"answers with status {status}" if status else f"dropped the connection or was too slow ({reason})"
        return DataError(f"{where}: the hub {what}, at every try.{got} Try again later")
    if kinds & {"ArrowInvalid", "JSONDecodeError", "UnicodeDecodeError", "BadGzipFile", "EOFError", "OSError"}:
        return DataError(
            f"{where}: a file of it is damaged ({reason}).{got} If it stays so, choose another hub.revision, or tell "
            f"its owners on {page}/discussions"
        )
    return DataError(f"{where} can't be read: {type(error).__name__}: {reason}.{got} Look at its files on {page}")
