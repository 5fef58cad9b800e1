"""Files that appear whole or not at all, and the one door for reading what may be damaged."""
