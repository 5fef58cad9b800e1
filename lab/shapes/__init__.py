"""A traced pass to look at: as a tree, a frame, annotated source, a difference, a drawing."""
