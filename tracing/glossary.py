"""The letters of the axis comments, and which of them may mean the same size."""

GLOSSARY = {
    "B": "batch",
    "T": "time (queries)",
    "S": "source time (keys)",
    "H": "heads",
    "G": "key-value heads",
    "D": "head dimension",
    "E": "head dimension with the extra ones of a bias",
    "C": "channels (width)",
    "F": "features (MLP hidden)",
    "V": "vocabulary",
    "N": "rows",
    "K": "queries of a block",
    "P": "keys up to the block's end, or of all future vectors",
    "I": "inputs of a linear map or a norm",
    "O": "outputs of a linear map",
    "A": "slices of a weight",
    "W": "tokens of a future window",
    "J": "vectors of future windows",
}
# Without a cache S is T, without a bias E is D, in multi-head attention G is H.
MAY_AGREE = {frozenset("ST"), frozenset("DE"), frozenset("GH")}
LOCAL = frozenset("NKPIOAWJ")  # these mean one size only within one turn of a loop; the others within a whole pass
