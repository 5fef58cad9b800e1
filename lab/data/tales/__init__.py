"""Tales: short stories for children from a grammar whose probabilities are known exactly."""

from lab.data.tales.telling import VERSION, Probe, Story, entropy, stories, story

__all__ = ["VERSION", "Probe", "Story", "entropy", "stories", "story"]
