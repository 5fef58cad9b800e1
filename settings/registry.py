"""The kinds of each part of a model: their names, their settings classes, and the classes that compute them.

config.py names the built-in kinds, without torch; modules/ attaches the classes that compute them. An idea does both in
one line above its class, in a notebook or in a file of modules/ideas/:

    @register("norm", "scale")
    class ScaleNorm(Norm): ...

A norm, position encoding, block or head may have settings of its own: a class derived from the family's settings whose
`kind` has the name as its default. An activation, a mixing or a pool has none, and is told by its name alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from settings.errors import ConfigError, IdeaError
from settings.messages import short, suggest
from settings.source_files import read_source

T = TypeVar("T")
FAMILIES = ("norm", "activation", "position", "mixing", "pool", "block", "head")
# Where a part says what it computes, if not in `forward`; and the methods of base classes that say nothing yet
METHODS = {"position": ("embed", "place"), "pool": ("pool", "reduce")}
UNWRITTEN = ("", "_forward_unimplemented", "Position.embed", "Position.place", "PartsPool.pool", "PartsPool.reduce")


@dataclass
class Kind:
    """One kind: its settings class (None: those of its family), what computes it, whether config.py named it.

    sources: of an idea, the file and the text that defined its "settings" and its "part" when they were registered.
    """

    settings: type | None = None
    part: Any = None
    built_in: bool = False
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)

    def keep_source(self, role: str, defined: Any) -> None:
        """Replaces the source of the settings or of the part; removes it if nobody can read the new one."""
        self.sources.pop(role, None)
        source = read_source(defined)
        if source:
            self.sources[role] = source


@dataclass
class Registry:
    """The kinds of all families, by name. load_ideas: imports the ideas of this repository, once, when a name is
    looked up that nobody has registered yet."""

    kinds: dict[str, dict[str, Kind]] = field(default_factory=lambda: {family: {} for family in FAMILIES})
    load_ideas: Callable[[], object] | None = None


REGISTRY = Registry()


def name_built_in(family: str, *names: str) -> None:
    """Names kinds of a family that modules/ attaches its classes to."""
    for name in names:
        REGISTRY.kinds[family].setdefault(name, Kind(built_in=True))


def name_settings(family: str, name: str, settings: type, built_in: bool) -> None:
    """Names a kind that has settings of its own, before there is a class that computes it."""
    known = REGISTRY.kinds[family].get(name)
    if known and (known.built_in != built_in or (known.settings and not same_class(known.settings, settings))):
        raise taken(family, name, settings, known)
    made = REGISTRY.kinds[family][name] = known or Kind()
    made.settings, made.built_in = settings, built_in
    if not built_in:
        made.keep_source("settings", settings)


def register(family: str, name: str) -> Callable[[T], T]:
    """A decorator that makes a class one more kind of a family: norm, activation, position, mixing, pool, block, head.

    Run again, as a notebook's cell is, it puts the new class in place of the one of the same name and module. Raises
    IdeaError for an unknown family, a name that is taken, and a class without a `forward`.
    """
    if family not in FAMILIES:
        raise IdeaError(f"unknown family {short(family)} of ideas; {suggest(str(family), FAMILIES)}")
    if not isinstance(name, str) or not name.isidentifier():
        raise IdeaError(f"an idea's name must be letters, digits and _, as in 'my_norm', not {short(name)}")

    def attach(part: T) -> T:
        known = REGISTRY.kinds[family].get(name, Kind())
        if known.built_in or (known.part is not None and not same_class(known.part, part)):
            raise taken(family, name, part, known)
        check_part(family, part)
        known.part = part
        known.keep_source("part", part)
        REGISTRY.kinds[family][name] = known
        return part

    return attach


def built_in(family: str, name: str) -> Callable[[T], T]:
    """A decorator for modules/ alone: attaches what computes a kind that config.py has named."""

    def attach(part: T) -> T:
        REGISTRY.kinds[family][name].part = part
        return part

    return attach


def taken(family: str, name: str, new: Any, known: Kind) -> IdeaError:
    whose = "built in" if known.built_in else f"already {(known.part or known.settings).__name__}"
    return IdeaError(f"{getattr(new, '__name__', short(new))}: {family} {name!r} is {whose}; take another name")


def check_part(family: str, part: Any) -> None:
    """Raises IdeaError unless `part` is a class that says what it computes, or for an activation a function."""
    if family == "activation" and callable(part) and hasattr(part, "__name__") and not isinstance(part, type):
        return
    if not isinstance(part, type):
        raise IdeaError(f"{short(part)} must be a class to be a kind of {family}; write `class Mine(...)` below it")
    methods = METHODS.get(family, ("forward",))
    if all(getattr(getattr(part, method, None), "__qualname__", "") in UNWRITTEN for method in methods):
        raise IdeaError(
            f"{part.__name__} has no {' or '.join(methods)}(); a {family} says there what it computes"
        )


def same_class(one: Any, other: Any) -> bool:
    """Whether both are the same definition, run once or twice."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def kinds_of(family: str) -> list[str]:
    """The names of a family's kinds, those of ideas that have been imported among them."""
    return list(REGISTRY.kinds[family])


def kind(family: str, name: object) -> Kind:
    """The kind of that name. Raises ConfigError where there is none."""
    known = REGISTRY.kinds[family]
    if isinstance(name, str) and name not in known and REGISTRY.load_ideas is not None:
        load, REGISTRY.load_ideas = REGISTRY.load_ideas, None  # it may itself look up names
        load()
    if not isinstance(name, str) or name not in known:
        near = suggest(name if isinstance(name, str) else "", known)
        raise ConfigError(f"unknown kind {short(name)} of {family}; {near}")
    return known[name]


def part(family: str, name: str) -> Any:
    """The class (of an activation also: the function) that computes a kind."""
    found = kind(family, name).part
    if found is None:
        raise ConfigError(
            f"{family} {name!r} has settings, but no class that computes it; import the file with "
            f'@register("{family}", "{name}") first'
        )
    return found


def is_built_in(family: str, name: str) -> bool:
    return kind(family, name).built_in
