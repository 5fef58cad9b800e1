"""Pictures of interventions."""

import pandas as pd

from lab.display.heat_maps import Labels, Scale, heat_maps
from lab.display.style import Picture


def ablation_heatmap(frame: pd.DataFrame) -> Picture:
    """The changes of loss that `ablate_heads` found: a row for each layer, a column for each head."""
    table = frame.pivot(index="layer", columns="head", values="change")
    rows, columns = (Labels(side.name, [str(number) for number in side]) for side in (table.index, table.columns))
    scale = Scale("change (nats per token)", signed=True)
    return heat_maps({"Loss without each head": table.to_numpy()}, rows, columns, scale)
