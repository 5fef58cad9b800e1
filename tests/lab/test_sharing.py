"""Runs as one file: what goes in comes out, on any machine alike; and everything that is not plain data stays out."""

import hashlib
import json
import shutil
import stat
import struct
import zipfile

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from lab.generation.generate import generate_text
from lab.runs.run import Run
from lab.sharing import export_run, import_run
from lab.terminal import main
from settings.errors import RunError
from tests.helpers.crafted_zips import (
    bomb_png,
    contents,
    numpy_file,
    pickled,
    png,
    read,
    replaced_names,
    torch_file,
    with_sums,
    write,
)
from tests.helpers.two_step_runs import LOG, MODEL, TRAIN, two_steps_done

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture
def run(tmp_path) -> Run:
    """A run with all that a run can have, made without training."""
    run = two_steps_done(tmp_path / "here")
    run.watch_path.write_text("step,layer,kind,value\n1,blocks.0,gradient,0.5\n")
    (run.folder / "README.md").write_text("# one\n\nÄ card\n", encoding="utf-8")
    (run.folder / "loss.png").write_bytes(png())
    run.checkpoint_path.parent.mkdir()
    run.checkpoint_path.write_bytes(b"not to be shared")
    (run.folder / "notes.txt").write_text("nor is this")
    return run


@pytest.fixture
def there(tmp_path):
    """Another machine's folder of runs, with one in it, of the other name."""
    folder = tmp_path / "there"
    (folder / "other").mkdir(parents=True)
    (folder / "other" / "README.md").write_text("mine")
    return folder


@pytest.fixture
def shared(run, tmp_path):
    return export_run(run, tmp_path / "one.zip")


def assert_refused(path, folder, message: str) -> None:
    before = contents(folder)
    with pytest.raises(RunError, match=message) as refusal:
        import_run(path, folder)
    assert str(path) in str(refusal.value)
    assert contents(folder) == before


# --- there and back -------------------------------------------------------------------------------------------


def test_an_imported_run_is_the_run_and_writes_the_same_text(run, shared, there):
    shutil.move(run.folder, run.folder.with_name("gone"))  # the other machine has nothing of it but the file
    imported = import_run(shared, there)
    assert imported.name == "one" and imported.folder == there / "one"
    assert contents(imported.folder) == {
        name: data for name, data in contents(run.folder.with_name("gone")).items()
        if name not in ("notes.txt", "checkpoint", "checkpoint/state.safetensors")
    }
    assert (imported.model_config, imported.train_config) == (MODEL, TRAIN.settled(MODEL))
    text = generate_text(imported.load_model(), imported.tokenizer, "Once", max_tokens=20, seed=3)
    original = Run.open("gone", run.folder.parent)
    assert text == generate_text(original.load_model(), original.tokenizer, "Once", max_tokens=20, seed=3)
    assert contents(there / "other") == {"README.md": b"mine"}


def test_the_same_run_gives_the_same_bytes(run, shared, tmp_path):
    copy = shutil.copytree(run.folder, tmp_path / "elsewhere" / "one")  # other times of change
    (copy / "loss.png").chmod(0o600)
    assert export_run(Run.open(copy), tmp_path / "again.zip").read_bytes() == shared.read_bytes()


def test_the_manifest_holds_what_sha256_says(run, shared):
    files = read(shared)
    manifest = json.loads(files.pop("manifest.json"))
    assert (manifest["name"], manifest["version"]) == ("one", 1)
    assert manifest["sha256"] == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_a_taken_name_needs_another(shared, there):
    import_run(shared, there)
    assert_refused(shared, there, r"'one' exists; import it under another: .*--name")
    assert import_run(shared, there, "two").name == "two"
    before = contents(there)
    with pytest.raises(RunError, match="can't be a run's name"):
        import_run(shared, there, "../two")
    assert contents(there) == before


def test_in_the_terminal(run, there, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lab.runs.names.TRAINED", run.folder.parent)
    assert main(["export", "one", "--file", str(tmp_path / "mine.zip")]) == 0
    assert str(tmp_path / "mine.zip") in capsys.readouterr().out
    monkeypatch.setattr("lab.runs.names.TRAINED", there)
    assert main(["import", str(tmp_path / "mine.zip"), "--name", "yours"]) == 0
    assert "yours" in capsys.readouterr().out and (there / "yours" / "model.safetensors").exists()
    assert main(["import", str(tmp_path / "nothing.zip")]) == 1
    assert capsys.readouterr().err.startswith("error: can't import")


def test_what_can_not_be_exported(run, shared, tmp_path):
    with pytest.raises(RunError, match=r"one[.]zip exists"):
        export_run(run, shared)
    with pytest.raises(RunError, match="can't write"):
        export_run(run, run.log_path / "one.zip")
    run.log_path.write_text("step,loss\n1,2\n")
    with pytest.raises(RunError, match=r"damaged: log_data.csv .* lacks the columns"):
        export_run(run, tmp_path / "two.zip")
    run.weights_path.unlink()
    with pytest.raises(RunError, match="stored no weights"):
        export_run(run, tmp_path / "two.zip")
    assert not (tmp_path / "two.zip").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "name", ["README.md", "train_config.json", "tokenizer.json", "model.safetensors", "log_data.csv", "loss.png"]
)
def test_a_link_is_not_followed_into_the_zip(run, tmp_path, name):
    """It may lead to what is private: a system file, a key."""
    private = tmp_path / "private"
    shutil.move(run.folder / name, private)
    (run.folder / name).symlink_to(private)
    with pytest.raises(RunError, match=rf"{name} is a link, and links are not shared"):
        export_run(run, tmp_path / "two.zip")
    assert not (tmp_path / "two.zip").exists() and private.exists()


def test_neither_is_a_folder_that_is_a_link(run, tmp_path):
    (tmp_path / "linked").symlink_to(run.folder)
    with pytest.raises(RunError, match="linked is a link"):
        export_run(Run.open(tmp_path / "linked"), tmp_path / "two.zip")
    (tmp_path / "dangling.zip").symlink_to(tmp_path / "elsewhere.zip")
    with pytest.raises(RunError, match=r"dangling[.]zip exists"):
        export_run(run, tmp_path / "dangling.zip")
    assert not (tmp_path / "two.zip").exists() and not (tmp_path / "elsewhere.zip").exists()


def test_a_zip_of_thousands_of_layers_is_refused(shared, there, tmp_path):
    path, files = tmp_path / "bad.zip", read(shared)
    write(path, with_sums(files | {"model_config.json": config_with(n_layers=3000)(files)}))
    assert_refused(path, there, "n_layers must be an integer from 1 to 512, not 3000")


# --- what is refused: names, kinds of entries, sizes, checksums -----------------------------------------------

STRANGE = [
    "../evil.csv", "/etc/evil.csv", "C:\\evil.csv", "C:evil.csv", "..\\evil.csv", "one/loss.png", "checkpoint/",
    "checkpoint/state.safetensors", "model.pt", "run.py", ".ipynb", "CON", "README.MD", "loss.png ", "loss.png\0.py",
    "lоss.png", "",
]


@pytest.mark.parametrize("name", STRANGE)
def test_no_other_name_is_taken(shared, there, tmp_path, name):
    files = with_sums(read(shared) | {name: b""})
    path = tmp_path / "bad.zip"
    placeholder = "x" * len(name.encode())  # zipfile itself writes none of the odd names
    write(path, {placeholder if key == name else key: data for key, data in files.items()})
    header_and_data = path.read_bytes()
    assert header_and_data.count(placeholder.encode()) >= 2
    if name:
        path.write_bytes(replaced_names(header_and_data, placeholder.encode(), name.encode()))
    assert_refused(path, there, r"it holds .* no paths")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_special_files_are_refused(shared, there, tmp_path, kind):
    files = with_sums(read(shared) | {"README.md": b"/etc/passwd"})
    path = tmp_path / "bad.zip"

    def change(info):
        if info.filename == "README.md":
            info.create_system, info.external_attr = 3, (kind | 0o777) << 16

    write(path, files, change=change)
    assert_refused(path, there, "README.md is a link or a special file")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_is_refused_unread(shared, there, tmp_path, compression):
    """Twenty megabytes of zeros in a few kilobytes."""
    files = with_sums(read(shared) | {"log_data.csv": bytes(20_000_000)})
    path = tmp_path / "bomb.zip"
    write(path, files, compression)
    assert path.stat().st_size < 100_000
    assert_refused(path, there, "is compressed")


def test_entries_over_each_other_are_refused(shared, there, tmp_path):
    """Many names for the same bytes: more comes out than the file has, without any compression."""
    data = bytearray(shared.read_bytes())
    first = data.find(b"PK\1\2")
    size = len(data)
    for field in (20, 24):  # compressed and plain size of the first entry
        struct.pack_into("<I", data, first + field, size)
    path = tmp_path / "bad.zip"
    path.write_bytes(data)
    assert_refused(path, there, "more bytes than the")


@pytest.mark.parametrize("name, size", [("README.md", 2**20 + 1), ("train_config.json", 2**20 + 1)])
def test_what_is_too_large_for_its_name_is_refused(shared, there, tmp_path, name, size):
    path = tmp_path / "bad.zip"
    write(path, with_sums(read(shared) | {name: b" " * size}))
    assert_refused(path, there, f"{name} says it has {size:,} bytes; the most is")


def test_encrypted_entries_are_refused(shared, there, tmp_path):
    data = bytearray(shared.read_bytes())
    data[data.find(b"PK\1\2") + 8] |= 1
    path = tmp_path / "bad.zip"
    path.write_bytes(data)
    assert_refused(path, there, "is encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicates_are_refused(shared, there, tmp_path):
    path = tmp_path / "bad.zip"
    shutil.copy(shared, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.md", "another")
    assert_refused(path, there, "holds README.md more than once")


@pytest.mark.parametrize("name", ["model_config.json", "tokenizer.json", "model.safetensors", "manifest.json"])
def test_what_is_needed_is_missed(shared, there, tmp_path, name):
    path = tmp_path / "bad.zip"
    write(path, {key: data for key, data in with_sums(read(shared)).items() if key != name})
    assert_refused(path, there, f"it lacks {name}")


def change_bit(files):
    weights = bytearray(files["model.safetensors"])
    weights[-1] ^= 1
    return files | {"model.safetensors": bytes(weights)}


@pytest.mark.parametrize(
    "change, message",
    [
        (change_bit, "model.safetensors has the wrong checksum"),
        (lambda files: with_sums(files, version=2), "newer Glassbox wrote it: version 2, this one reads 1"),
        (lambda files: with_sums(files, version=True), "does not describe a shared run"),
        (lambda files: with_sums(files, format="other"), "does not describe a shared run"),
        (lambda files: with_sums(files, name="../../one"), "can't be a run's name"),
        (lambda files: with_sums(files, name=None), "must have the run's name"),
        (lambda files: with_sums(files, sha256=[]), "must have the run's name"),
        (lambda files: with_sums(files, sha256={}), "manifest.json lists .*, and the file holds README.md"),
        (lambda files: with_sums(files, sha256={name: {} for name in files if name != "manifest.json"}), "checksum"),
        (lambda files: with_sums(files, sha256={name: "x" for name in files if name != "manifest.json"}), "checksum"),
        (lambda files: files | {"manifest.json": b"[]"}, "does not describe a shared run"),
        (lambda files: files | {"manifest.json": b"["}, "manifest.json is not JSON"),
        (lambda files: files | {"manifest.json": b"[" * 200_000}, "manifest.json is not JSON"),
        (lambda files: {name: data for name, data in files.items() if name != "loss.png"}, "lists .* holds"),
    ],
)
def test_what_the_manifest_does_not_say_is_refused(shared, there, tmp_path, change, message):
    path = tmp_path / "bad.zip"
    write(path, change(read(shared)))
    assert_refused(path, there, message)


# --- what is refused: content that is not what its name says --------------------------------------------------


@pytest.mark.parametrize("make", [pickled, torch_file, numpy_file])
@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors", "lens.safetensors", "README.md", "log_data.csv", "watch_data.csv", "loss.png",
        "model_config.json", "train_config.json", "tokenizer.json",
    ],
)
def test_a_pickle_is_refused_under_any_name(shared, there, tmp_path, name, make):
    path = tmp_path / "bad.zip"
    write(path, with_sums(read(shared) | {name: make()}))
    assert_refused(path, there, "is refused, nothing was written|not a whole zip")


def config_with(**changes):
    return lambda files: json.dumps(json.loads(files["model_config.json"]) | changes).encode()


def tensors_with(change):
    def make(files):
        (source := make.folder / "x.safetensors").write_bytes(files["model.safetensors"])
        tensors = load_file(source)
        change(tensors)
        save_file(tensors, source, {"step": "2"})
        return source.read_bytes()

    return make


CONTENTS = [
    ("model_config.json", lambda files: b"{" * 100_000, "not valid JSON"),
    ("model_config.json", lambda files: b"[" * 100_000, "not valid JSON: it nests too deep"),
    ("model_config.json", lambda files: b"\xff\xfe", "model_config.json .* is damaged: .utf-8. codec"),
    ("model_config.json", config_with(block={"kind": "from-the-future"}), "from-the-future"),
    ("model_config.json", config_with(widht=3), "unknown setting 'widht'; did you mean 'width'"),
    ("model_config.json", config_with(n_layers=10**9), "n_layers must be an integer from 1 to 512"),
    ("model_config.json", config_with(width=2**30), "width must be an integer from 1 to 65,536"),
    ("model_config.json", config_with(vocab_size=10**30), "vocab_size must be an integer from 1 to 1,048,576"),
    ("model_config.json", config_with(max_positions=10**15), "max_positions must be an integer from 1 to 1,048,576"),
    ("model_config.json", config_with(mlp={"ratio": 1e300}), "ratio must be a finite number above 0 and at most 256"),
    ("model_config.json", config_with(mlp={"ratio": 200.0}), "does not fit its model_config"),
    ("model_config.json", config_with(init_std=10**400), "init_std must be a finite number above 0"),
    ("train_config.json", lambda files: b'{"steps": NaN}', "steps must be an integer"),
    ("tokenizer.json", lambda files: b'{"kind": "bpe", "name": "x"}', "damaged tokenizer file"),
    ("tokenizer.json", lambda files: b'{"kind": ["bpe"], "name": "x"}', "damaged tokenizer file"),
    ("tokenizer.json", lambda files: json.dumps({"kind": "character", "name": "x", "characters": "äöü"}).encode(),
     "tokenizer.json holds another tokenizer"),
    ("model.safetensors", lambda files: files["model.safetensors"][:-1], "not a whole safetensors file"),
    ("model.safetensors", tensors_with(lambda t: t.pop("norm.weight")), "norm.weight: stored nothing"),
    ("model.safetensors", tensors_with(lambda t: t.update(scale=t.pop("norm.weight"))), "norm.weight: stored nothing"),
    ("lens.safetensors", lambda files: files["model.safetensors"], "was trained for other weights"),
    ("log_data.csv", lambda files: b"step,loss\n1,2\n", "lacks the columns"),
    ("log_data.csv", lambda files: LOG.encode() + b"1,64,0.1,=cmd(),,0,0,0,0\n", r"loss is '=cmd\(\)' in row 1"),
    ("log_data.csv", lambda files: LOG.encode() + b"1.5,64,0.1,5,,0,0,0,0\n", "step is 1.5 in row 1"),
    ("watch_data.csv", lambda files: b"step,layer,kind,value\n1,a,b,c\n", "value is 'c' in row 1"),
    ("README.md", lambda files: b"\xff", "not UTF-8 text"),
    ("loss.png", lambda files: b"GIF89a" + files["loss.png"], "not a PNG"),
    ("loss.png", lambda files: files["loss.png"][:-5], "not a PNG|a plain PNG"),
    ("loss.png", lambda files: files["loss.png"] + b"<script>", "a plain PNG"),
    ("loss.png", lambda files: bomb_png(60_000), "not a PNG"),
    ("loss.png", lambda files: bomb_png(8_000), "a plain PNG of at most"),
]


@pytest.mark.parametrize("name, make, message", CONTENTS)
def test_what_is_not_what_its_name_says_is_refused(shared, there, tmp_path, name, make, message):
    make.folder, path, files = tmp_path, tmp_path / "bad.zip", read(shared)
    write(path, with_sums(files | {name: make(files)}))
    assert_refused(path, there, message)


def test_whatever_byte_is_damaged_nothing_but_the_run_itself_is_imported(shared, tmp_path):
    """Cut anywhere or with any byte changed: refused, or harmless, such as a changed date; never another error."""
    whole, original = shared.read_bytes(), read(shared)
    random, refused = np.random.default_rng(0), 0
    for number in range(150):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: random.integers(len(whole))]
        else:  # mostly in the headers, which are few of the bytes
            start = whole.find(b"PK\1\2") if number % 3 == 1 else 0
            data[random.integers(start, len(whole))] ^= 1 << random.integers(8)
        path, folder = tmp_path / "damaged.zip", tmp_path / f"runs{number}"
        path.write_bytes(data)
        try:
            found = contents(import_run(path, folder, "run").folder)
            assert found == {name: content for name, content in original.items() if name != "manifest.json"}
        except RunError:
            refused += 1
            assert not folder.exists() or contents(folder) == {}
    assert 100 < refused <= 150
