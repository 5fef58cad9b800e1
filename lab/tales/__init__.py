"""Tales: short stories for children from a grammar whose probabilities are known exactly."""

from lab.tales.story import VERSION, Probe, Story, derivations, entropy, log_probability, stories, story

__all__ = ["VERSION", "Probe", "Story", "derivations", "entropy", "log_probability", "stories", "story"]
