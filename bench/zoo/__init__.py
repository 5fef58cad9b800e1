"""The zoo: every architecture at equal size, trained alike, and the pages that show it."""
