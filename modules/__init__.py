"""The parts of a transformer, each readable in one sitting. Torch only: no files, no plots, no prints.

Every line that makes a tensor of a new shape ends with its axes, in these letters:

    B  batch: sequences side by side          C  channels: the width of the model
    T  time: positions of the queries         H  heads of the queries
    S  source: positions of the keys          G  groups: heads of the keys and values, G divides H
    V  vocabulary                             D  dimension of one head
    F  features: hidden units of the MLP      N  any number of rows
"""

GLOSSARY = {
    "B": "batch",
    "T": "time (queries)",
    "S": "source time (keys)",
    "H": "heads",
    "G": "key-value heads",
    "D": "head dimension",
    "C": "channels (width)",
    "F": "features (MLP hidden)",
    "V": "vocabulary",
    "N": "rows",
}
