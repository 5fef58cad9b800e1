"""Pictures, tables of tokens, source and questions, each readable in light and dark."""
