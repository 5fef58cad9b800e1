"""Traces a pass of a model statement by statement. Without a trace it costs nothing."""
