"""How settings are checked, read and written; errors; paths. Nothing here imports torch."""
