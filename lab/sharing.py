"""A run as one file: `export_run` zips it with checksums, `import_run` verifies and unpacks it.

The zip holds the files of the run folder, without the checkpoint, and a manifest with a checksum of each. It is not
compressed: weights hardly shrink, the same run gives the same bytes on every machine, and no file can unpack to more
than its own size. The checksums find damage. A malicious zip can do no harm, because only plain data under known names
is accepted, and each file must be valid for its name.
"""

import hashlib
import io
import json
import math
import os
import stat
import struct
import zipfile
from pathlib import Path

from PIL import Image

from lab.analysis.tuned_lens import lens_path, load_lens
from lab.files import reading as guarded
from lab.files.atomic import atomic_path
from lab.files.reading import MIB, named_path, reading
from lab.runs.idea_source import IdeaNeeded
from lab.runs.lock import build_folder
from lab.runs.names import check_name, runs_folder
from lab.runs.run import Run
from lab.runs.weights import check_shapes, read_header
from settings.errors import GlassboxError, RunError
from settings.json_text import parse_json

VERSION = 1
MANIFEST = "manifest.json"
UNSHARED = {"state.safetensors", "classifier.json"}  # the checkpoint; what makes a folder a classifier's
# The files that a shared run may hold, and the most bytes of each
MOST_BYTES = {name: most for name, most in guarded.MOST_BYTES.items() if name not in UNSHARED} | {MANIFEST: MIB}
NEEDED = {"model_config.json", "train_config.json", "tokenizer.json"}
WEIGHTS = {"model.safetensors", "adapter.safetensors"}  # one of them is there
MOST_PIXELS = 2**25
PNG_END = b"IEND\xaeB`\x82"
AGES_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can store
BUFFER = MIB


def export_run(run: Run, path: Path | str | None = None) -> Path:
    """Writes the run as one zip and returns its path, which is NAME.zip in the working folder by default.

    Raises RunError if the run is damaged or has no weights, and if the file exists.
    """
    path = named_path(path or f"{run.name}.zip")
    if os.path.lexists(path):
        raise RunError(f"{path} exists; delete it, or name another file")
    check_no_links(run.folder)
    check_contents(run.folder)
    names = [name for name in sorted(MOST_BYTES) if (run.folder / name).is_file()]
    try:
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            files = {}
            for name in names:
                data = (run.folder / name).read_bytes()
                if name == "data.json":
                    data = run.text.without_path().to_json().encode("utf-8")
                elif name == "origin.json":
                    data = run.origin.without_path().to_json().encode("utf-8")
                files[name] = hashlib.sha256(data).hexdigest()
                archive.writestr(entry(name), data)
            manifest = {"format": "glassbox run", "version": VERSION, "name": run.name, "sha256": files}
            archive.writestr(entry(MANIFEST), json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror}; free space or choose another folder") from error
    return path


def check_no_links(folder: Path) -> None:
    """Raises RunError if the folder or a file to be shared is a link, because it may point to private data."""
    for path in (folder, *(folder / name for name in MOST_BYTES)):
        found = path.lstat() if os.path.lexists(path) else None
        if found and stat.S_ISLNK(found.st_mode):
            raise RunError(f"{path} is a link, and links are not shared; put a copy of the file in its place")


def entry(name: str) -> zipfile.ZipInfo:
    """A plain file in a zip, without the time and the system it was made on."""
    info = zipfile.ZipInfo(name, AGES_AGO)
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    return info


def import_run(path: Path | str, folder: Path | None = None, name: str | None = None) -> Run:
    """Unpacks a zip that `export_run` wrote into trained/ (or `folder`), under its own name or `name`; opens the run.

    Names, sizes and checksums are verified before anything is written, and the content of the files before the run gets
    its name. Raises RunError if anything is wrong; the folder is then unchanged.
    """
    path, folder = named_path(path), runs_folder(folder)
    try:
        with zipfile.ZipFile(path) as archive:
            members = check_entries(archive, path.stat().st_size)
            manifest = read_manifest(archive)
            name = manifest["name"] if name is None else name
            check_name(name)
            if (folder / name).exists():
                raise RunError(f"a run named {name!r} exists; import it under another: name='...', or --name")
            check_sums(archive, members, manifest["sha256"])
            with build_folder(name, folder) as building:
                for member in members:
                    (building / member).write_bytes(archive.read(member))
                check_contents(building)
    except RunError as error:
        raise RunError(f"{path} is refused, nothing was written: {error}") from error
    except OSError as error:
        raise RunError(f"can't import {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, ValueError) as error:
        raise RunError(f"{path} is not a whole zip: {str(error) or type(error).__name__}; get it again") from error
    return Run(folder / name)


def check_entries(archive: zipfile.ZipFile, size: int) -> list[str]:
    """The names of all entries except the manifest. Raises RunError unless each is an allowed, uncompressed file."""
    entries = archive.infolist()
    names = [info.orig_filename for info in entries]
    for info, name in zip(entries, names):
        if name not in MOST_BYTES:
            raise RunError(
                f"it holds {name!r:.80}, but a shared run has no folders, no paths and only these files: "
                f"{', '.join(MOST_BYTES)}"
            )
        if names.count(name) > 1:
            raise RunError(f"it holds {name} more than once")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise RunError(f"{name} is a link or a special file, not a plain one")
        if info.flag_bits & 1:
            raise RunError(f"{name} is encrypted, and `export` never encrypts; ask for the file that `export` wrote")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise RunError(f"{name} is compressed, and `export` never compresses; ask for the file that `export` wrote")
        if info.file_size > MOST_BYTES[name]:
            raise RunError(f"{name} says it has {info.file_size:,} bytes; the most is {MOST_BYTES[name]:,}")
    if sum(info.file_size for info in entries) > size:
        raise RunError(f"its entries claim more bytes than the {size:,} of the whole file; get the file again")
    missing = (NEEDED | {MANIFEST}) - set(names)
    if not WEIGHTS & set(names):
        missing.add("model.safetensors")
    if missing:
        raise RunError(f"it lacks {', '.join(sorted(missing))}; only a file that `export` wrote can be imported")
    return sorted(set(names) - {MANIFEST})


def read_manifest(archive: zipfile.ZipFile) -> dict:
    """The manifest. Raises RunError unless it has the name and the checksums of a run that this version reads."""
    try:
        manifest = parse_json(archive.read(MANIFEST).decode("utf-8"))
    except ValueError as error:  # a ConfigError is one
        raise RunError(f"{MANIFEST} is not JSON: {error}") from error
    kind, version = (manifest.get("format"), manifest.get("version")) if isinstance(manifest, dict) else (None, None)
    if kind != "glassbox run" or type(version) is not int or version < 1:
        raise RunError(f"{MANIFEST} does not describe a shared run")
    if version > VERSION:
        raise RunError(f"a newer Glassbox wrote it: version {version}, this one reads {VERSION}; update Glassbox")
    if not isinstance(manifest.get("name"), str) or not isinstance(manifest.get("sha256"), dict):
        raise RunError(f"{MANIFEST} must have the run's name and checksums")
    return manifest


def check_sums(archive: zipfile.ZipFile, members: list[str], sums: dict) -> None:
    """Raises RunError unless the manifest lists exactly these members, each with its SHA-256."""
    if sorted(sums) != members:
        raise RunError(f"{MANIFEST} lists {', '.join(sorted(sums))}, and the file holds {', '.join(members)}")
    for member in members:
        digest = hashlib.sha256()
        with archive.open(member) as file:
            while part := file.read(BUFFER):
                digest.update(part)
        if sums[member] != digest.hexdigest():
            raise RunError(f"{member} has the wrong checksum: it was changed or damaged; get the file again")


# --- the content of the files --------------------------------------------------------------------------------------


def check_contents(folder: Path) -> None:
    """Raises RunError unless every file of the run has the content that its name promises."""
    for name, check in CONTENTS.items():
        if os.path.lexists(folder / name):
            with reading(folder / name):
                check(name, (folder / name).read_bytes())
    try:
        run = Run(folder)
        check_weights(run)
        for path, read in {run.log_path: run.log, run.watch_path: run.watch}.items():
            if os.path.lexists(path):
                read()
        if os.path.lexists(lens_path(run)):
            load_lens(run)
    except IdeaNeeded:
        raise
    except GlassboxError as error:
        raise RunError(f"the run is damaged: {error}") from error


def check_weights(run: Run) -> None:
    """Raises RunError unless the weights fit the config, and tell the step and the loss they were stored at."""
    shapes, facts = read_header(run.weights_path)
    check_shapes(shapes, run.model_config, run.weights_path)
    if "step" not in facts or ("validation_loss" in facts and not math.isfinite(run.validation_loss())):
        raise RunError(f"{run.weights_path.name} does not tell the step and the loss it was stored at")
    run.stored_at()


def check_utf8(name: str, data: bytes) -> None:
    """Raises RunError unless the data are UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{name} is not UTF-8 text: {error}") from error


def check_png(name: str, data: bytes) -> None:
    """Raises RunError unless the data are one whole PNG, with nothing after its end, and small enough to draw."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = image.width * image.height
            image.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RunError(f"{name} is not a PNG: {error}") from error
    if pixels > MOST_PIXELS or not data.endswith(PNG_END):
        raise RunError(f"{name} must be a plain PNG of at most {MOST_PIXELS:,} pixels")


CONTENTS = {"README.md": check_utf8, "idea.py": check_utf8, "loss.png": check_png, "watch.png": check_png,
            "mixture.png": check_png}
