"""The version of this code, for what a run stores."""

import subprocess

from settings.paths import ROOT


def code_version() -> str:
    """The commit of this code, with "+changes" if files differ from it; "unknown" outside a git checkout."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", ROOT, *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()
