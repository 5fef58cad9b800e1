"""An interactive generation without a terminal: a line in, pieces of text out.

    session = InteractiveSession(Run.open("llama-tiny-tales"))
    "".join(session.reply("Once there was"))      the beginning and its continuation
    "".join(session.reply("/temperature 0.5"))    a setting, from now on
"""

from collections.abc import Callable, Iterator
from typing import Literal

from lab.generation.generate import stream_text
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig, strategy
from lab.runs.run import Run
from settings.by_name import read_setting, types_by_name
from settings.checked import Config, settings
from settings.errors import ConfigError
from settings.messages import suggest
from settings.types import Whole

MOST = 10**12


@settings
class TextSettings(Config):
    """How long a text may be, its seed (the same seed gives the same text), and how its steps are computed.

    max_tokens: None is 200, or as many as the model has positions for, if those are fewer.
    """

    max_tokens: Whole[1, MOST] | None = None
    seed: Whole[0, MOST] = 0
    decode: Literal["auto", "eager", "compiled"] = "auto"


ROOTS = {"sampling": SamplingConfig, "text": TextSettings}
SETTINGS = {name.split(".")[1].replace("_", "-"): name for name in types_by_name(ROOTS)}  # "top-k": "sampling.top_k"
HELP = """
Type a beginning, and the model goes on. (One that begins with / is typed as //.) Ctrl-C stops a text.
/strategy NAME            sampling as in one of: {strategies}
{settings}
/run NAME                 another run, with these settings
/settings                 what is set now; None is typed as none
/help                     this
/quit                     the end, as Ctrl-D
""".strip()
ABOUT = {  # of each setting an example, and what it does
    "temperature": ("0.5", "0 is greedy; below 1 sharper, above 1 flatter"),
    "top-k": ("20", "only the 20 likeliest tokens"),
    "top-p": ("0.9", "only the likeliest tokens that reach 0.9 together"),
    "min-p": ("0.05", "only tokens with 0.05 of the likeliest one's probability"),
    "repetition-penalty": ("1.2", "above 1, tokens that came before are less likely"),
    "max-tokens": ("50", "how many tokens at most"),
    "seed": ("3", "another text; the same seed gives the same one"),
    "decode": ("compiled", "slow to start, then fast; eager; or auto"),
}


class InteractiveSession:
    """Continues beginnings with a run; commands, which begin with /, change how. `ended`: whether /quit was said.

    A command that can't be carried out raises a GlassboxError that says what is possible, and changes nothing.
    """

    def __init__(self, run: Run, sampling: SamplingConfig = STRATEGIES["balanced"], **text_settings):
        self.settings: dict[str, Config] = {"sampling": sampling, "text": TextSettings(**text_settings)}
        self.commands: dict[str, Callable[[str], str]] = {
            "strategy": self.use_strategy, "run": self.use_run, "settings": self.tell_settings, "help": self.tell_help,
            "quit": self.quit,
        }
        self.ended = False
        self.use(run)

    def reply(self, line: str) -> Iterator[str]:
        """The text that a beginning becomes, in pieces as the model generates it; or the answer to a command."""
        line = line.rstrip("\r\n")
        if line.startswith("/") and not line.startswith("//"):
            yield self.obey(line[1:])
        elif line.strip():
            prompt = line.removeprefix("/")
            how = dict(sampling=self.settings["sampling"]) | self.settings["text"].to_dict()
            pieces = stream_text(self.model, self.run.tokenizer, prompt, **how)
            yield prompt
            yield from pieces

    def obey(self, command: str) -> str:
        """Carries out a command, given without its /, and says what is so now."""
        name, _, value = command.strip().partition(" ")
        if name in self.commands:
            return self.commands[name](value.strip())
        if name not in SETTINGS:
            possible = suggest(f"/{name}", [f"/{known}" for known in (*self.commands, *SETTINGS)])
            raise ConfigError(f"there is no command /{name}; {possible}")
        return self.change(name, value.strip())

    def change(self, name: str, value: str) -> str:
        """Sets what a command such as "top-k" names."""
        root, field = SETTINGS[name].split(".")
        if not value:
            raise ConfigError(f"/{name} needs a value, as in /{name} {ABOUT[name][0]}; it is {self.value(name)} now")
        read = read_setting(ROOTS, SETTINGS[name], "None" if value.lower() == "none" else value)
        self.settings[root] = self.settings[root].replace(**{field: read})
        return f"{name} {self.value(name)}"

    def value(self, name: str) -> object:
        root, field = SETTINGS[name].split(".")
        return getattr(self.settings[root], field)

    def use_strategy(self, name: str) -> str:
        self.settings["sampling"] = strategy(name)
        return f"strategy {name}: {', '.join(self.lines(of='sampling'))}"

    def use_run(self, name: str) -> str:
        if not name:
            raise ConfigError(f"/run needs the name of a run, as in /run {self.run.name}")
        self.use(Run.open(name))
        return repr(self.run)

    def use(self, run: Run) -> None:
        self.model = run.load_model()  # first, because it may fail
        self.run = run

    def tell_settings(self, _: str) -> str:
        return "\n".join([f"run {self.run.name}", *self.lines()])

    def tell_help(self, _: str) -> str:
        about = [f"/{name} {example}".ljust(26) + what for name, (example, what) in ABOUT.items()]
        return HELP.format(strategies=", ".join(STRATEGIES), settings="\n".join(about))

    def quit(self, _: str) -> str:
        self.ended = True
        return ""

    def lines(self, of: str = "") -> list[str]:
        return [f"{name} {self.value(name)}" for name, dotted in SETTINGS.items() if dotted.startswith(of)]
