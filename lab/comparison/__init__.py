"""Several runs beside each other: table, curves, scores, disagreement, sweeps."""
