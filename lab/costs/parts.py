"""The names that costs are told by: of a model's parts, and of the moments of a training step."""

BACKWARD, UPDATE = "the backward pass", "the update"


def part_of(path: str) -> str:
    """The part that a parameter or a module belongs to: "blocks.0.mlp.up.weight" -> "blocks.0.mlp"."""
    names = path.split(".")
    return ".".join(names[: 3 if names[0] == "blocks" else 1])
