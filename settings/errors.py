"""The errors that a user can cause and mend."""


class GlassboxError(Exception):
    """What a user can cause and mend: the message says what was wrong, what was expected, and what to do."""


class ConfigError(GlassboxError, ValueError):
    """Settings that are unknown, of the wrong type, or impossible together."""


class DataError(GlassboxError):
    """Documents that can't be read, split or cached."""


class TokenizerError(GlassboxError):
    """A tokenizer that is unknown, can't be fetched, or was given what it can't encode."""


class RunError(GlassboxError):
    """A run folder that is missing, damaged or in the way."""


class GenerationError(GlassboxError, ValueError):
    """A prompt or a sampling setting that can't be used."""


class IdeaError(GlassboxError, ValueError):
    """A part of one's own that can't be registered, or that breaks a law of its family."""


class ToldByAnotherRank(GlassboxError):
    """Ends a process whose training failed, where another of its ranks tells the user why."""
