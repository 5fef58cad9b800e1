"""The measured studies: each trains small models and writes its rows into bench/results/."""
