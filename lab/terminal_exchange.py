"""The commands `export` and `import`: runs as one file, and in Hugging Face's layout."""

from pathlib import Path
from typing import Literal

import tyro

from settings.errors import ConfigError

Positional = tyro.conf.Positional


def export(
    run: Positional[str], folder: Positional[Path | None] = None, file: Path | None = None,
    format: Literal["zip", "hf"] = "zip", dtype: Literal["fp32", "bf16"] | None = None, shard_bytes: int | None = None,
) -> None:
    """Pack a run into one file to share: its card, logs, weights, settings and tokenizer. Or, with --format hf, write
    it as a folder that Hugging Face's transformers reads.

    Args:
        run: The run's name, or its folder.
        folder: With --format hf, the folder to write; by default the run's name with -hf, here.
        file: The zip to write; by default the run's name with .zip, here.
        format: zip, for another Glassbox; or hf, for transformers.
        dtype: With --format hf, the type of the weights; by default as the run stores them.
        shard_bytes: With --format hf, cut the weights into files of at most so many bytes; by default 5,000,000,000.
    """
    from lab.runs.run import Run

    if format == "zip":
        if (folder, dtype, shard_bytes) != (None, None, None):
            raise ConfigError("a folder, --dtype and --shard-bytes belong to --format hf; a zip is named by --file")
        from lab.sharing import export_run

        path = export_run(Run.open(run), file)
        print(f"{path}, {path.stat().st_size / 1e6:.1f} MB; to open it elsewhere: python tools.py import {path.name}")
        return
    if file is not None:
        raise ConfigError("--file names a zip; name the folder of --format hf as in: export RUN FOLDER --format hf")
    from lab.exchange.export import export_hf

    limit = {} if shard_bytes is None else {"shard_bytes": shard_bytes}
    path = export_hf(Run.open(run), folder, dtype=dtype, **limit)
    size = sum(entry.stat().st_size for entry in path.iterdir())
    print(f"{path}, {size / 1e6:.1f} MB; to open it: AutoModelForCausalLM.from_pretrained({str(path)!r})")


def import_(file: Positional[Path], name: str | None = None, text: str | None = None) -> None:
    """Verify a file that `export` wrote, or a folder in Hugging Face's layout, and put its run into trained/.

    Args:
        file: The zip, or the folder.
        name: What to call the run here; by default what it was called.
        text: For a folder, what to measure the run on, because what it was trained on is unknown: tales (by default),
            pydocs, pycode, or files of your own.
    """
    if file.is_dir():
        from lab.exchange.importing import import_hf

        run = import_hf(file, name=name, **({} if text is None else {"text": text}))
        print(f"{run!r}; {run.stored_parameters():,} parameters, {run.tokenizer.vocab_size:,} tokens")
        return
    if text is not None:
        raise ConfigError("--text is for a folder of Hugging Face's; a zip says itself what its run was trained on")
    from lab.sharing import import_run

    print(repr(import_run(file, name=name)))
