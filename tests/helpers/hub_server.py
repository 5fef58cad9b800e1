"""A server on loopback that lays out and serves data sets as the Hugging Face hub does, with faults on demand."""

import gzip
import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

FIRST_COMMIT = "a" * 40


@dataclass
class Repo:
    """The files of a set, by path. gated: the status that its files are refused with. past: its earlier commits."""

    files: dict[str, bytes]
    commit: str = FIRST_COMMIT
    gated: int | None = None
    past: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def at(self, revision: str | None) -> "Repo | None":
        """The set at a revision; None if it has no such revision."""
        if revision in self.past:
            return Repo(self.past[revision], revision, self.gated)
        return self if revision in (None, "main", self.commit) else None


@dataclass
class Fault:
    """What happens instead of the next `times` answers to paths that match `pattern`.

    kind: a status such as 503, "drop" (the connection ends in the middle of the body), "slow" (the body comes after
    `seconds`), or "refuse" (the connection ends before any answer).
    """

    pattern: str
    kind: int | str
    times: int = 1
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class HubServer:
    """The sets by name, the faults still to come, and the requests that came."""

    repos: dict[str, Repo] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""

    def take_fault(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, path):
                fault.times -= 1
                return fault
        return None

    def bytes_requested(self, pattern: str) -> int:
        """How often a path that matches was asked for."""
        return sum(1 for request in self.requests if re.search(pattern, request))


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub: api/datasets/NAME[/revision/R], tree, paths-info, and resolve with ranges."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client to acknowledge its head
    hub: HubServer

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.posted = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer()

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        fault = self.hub.take_fault(f"{self.command} {path}")
        if fault and fault.kind == "refuse":
            self.close_connection = True
            return
        if fault and isinstance(fault.kind, int):
            self.reply(fault.kind, b"busy", fault.headers)
            return
        api = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path)
        file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = api or file
        repo = match and self.hub.repos.get(match[1])
        if not repo:
            self.reply(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif not (repo := repo.at(match[2] if file else match[3])):
            self.reply(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        elif file:
            self.send_file(repo, file[3], fault)
        else:
            self.send_api(match[1], repo, match[2], match[4] or "")

    def send_api(self, name: str, repo: Repo, what: str | None, folder: str):
        entries = [entry(path, content) for path, content in repo.files.items()]
        folders = sorted({parent.as_posix() for path in repo.files for parent in Path(path).parents} - {"."})
        entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders]
        if what == "paths-info":
            wanted = json.loads(self.posted)["paths"]
            self.send_json([one for one in entries if one["path"] in wanted])
        elif what == "tree":
            within = [one for one in entries if not folder or one["path"].startswith(f"{folder}/")]
            if "recursive=true" not in self.path.lower():
                within = [one for one in within if "/" not in one["path"].removeprefix(f"{folder}/")]
            if within:
                self.send_json(within)
            else:
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": f"{folder} does not exist"})
        else:
            siblings = [{"rfilename": path} for path in repo.files]
            self.send_json({"id": name, "sha": repo.commit, "private": False, "gated": False, "disabled": False,
                            "downloads": 0, "likes": 0, "tags": [], "siblings": siblings})

    def send_file(self, repo: Repo, path: str, fault: Fault | None):
        if repo.gated:
            self.reply(repo.gated, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
            return
        if path not in repo.files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self.reply(404, b"", headers | {"X-Repo-Commit": repo.commit})
            return
        content, status = repo.files[path], 200
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": repo.commit,
                   "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"], status = f"bytes {first}-{last}/{len(content)}", 206
            content = content[first : last + 1]
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        self.reply(status, content, headers, cut=bool(fault and fault.kind == "drop"))

    def send_json(self, value: object):
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply(self, status: int, body: bytes, headers: dict[str, str], cut: bool = False):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # who asked may have given up
                self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


def entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": path}


@contextmanager
def serve(folder: Path, monkeypatch) -> Iterator[HubServer]:
    """Serves until the `with` ends; huggingface_hub and datasets ask this server and keep what they read in `folder`.

    Their waits between two tries are a hundredth of what they are, by the clock that they sleep by.
    """
    import datasets.config
    import datasets.utils.file_utils
    from huggingface_hub import HfFileSystem, constants
    from huggingface_hub.utils import _http

    HfFileSystem.clear_instance_cache()  # of a server that had the same port, it remembers the files
    hub = HubServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", folder / "datasets" / "downloads")
    quick = SimpleNamespace(**{name: getattr(time, name) for name in dir(time) if not name.startswith("__")})
    quick.sleep = lambda seconds: time.sleep(seconds / 100)
    monkeypatch.setattr(_http, "time", quick)
    monkeypatch.setattr(datasets.utils.file_utils, "time", quick)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


# --- files of a set ---------------------------------------------------------------------------------------------


def parquet_file(texts: list, group: int = 50, column: str = "text") -> bytes:
    """A table with a column of numbers and one of texts, in groups of so many rows."""
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    table = pyarrow.table({"id": list(range(len(texts))), column: texts})
    parquet.write_table(table, buffer, row_group_size=group)
    return buffer.getvalue()


def jsonl_file(texts: list, packed: bool = False) -> bytes:
    """The same as lines of JSON, perhaps packed by gzip."""
    lines = "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts))
    return gzip.compress(lines.encode("utf-8"), mtime=0) if packed else lines.encode("utf-8")


def arrow_file(texts: list) -> bytes:
    """The same as an Arrow stream, as `datasets` stores it."""
    import pyarrow

    table, buffer = pyarrow.table({"id": list(range(len(texts))), "text": texts}), io.BytesIO()
    with pyarrow.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    return buffer.getvalue()


KINDS = {
    "parquet": parquet_file, "jsonl": jsonl_file, "arrow": arrow_file,
    "json.gz": lambda texts: jsonl_file(texts, packed=True),
}


def files_of(texts: list, kind: str = "parquet", n_files: int = 2) -> dict[str, bytes]:
    """The texts in files of equal length, in the folder that the hub expects a train split in."""
    step = -(-len(texts) // n_files)
    return {
        f"data/train-{number:05d}-of-{n_files:05d}.{kind}": KINDS[kind](texts[number * step : (number + 1) * step])
        for number in range(n_files)
    }


def card_of(subsets: dict[str, dict[str, str]]) -> bytes:
    """A README that says which files are which split of which subset."""
    lines = ["---", "configs:"]
    for subset, splits in subsets.items():
        lines += [f"- config_name: {subset}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    return "\n".join([*lines, "---", ""]).encode("utf-8")
