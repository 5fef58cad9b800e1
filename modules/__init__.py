"""The parts of a transformer, each short enough to read at once. Torch only: no files, no plots, no prints.

Every statement that makes a tensor ends with its axes, in these letters, and a test compares them with true sizes:

    B  batch: sequences side by side          H  heads of the queries
    T  time: positions of the queries         G  groups: heads of the keys and values, G divides H
    S  source: positions of the keys          D  dimension of one head
    C  channels: the width of the model       E  D, and the extra dimensions that carry a bias
    F  features: hidden units of the MLP      V  vocabulary

    and in code that works part by part, sizes that differ from one part to the next:

    N  any number of rows                     K  queries of one block
    I  inputs, O outputs of a linear map      P  keys up to that block's end, or future vectors
    W  window: tokens that a level predicts   J  vectors that stand for windows

`(B, T, 2F)`, `(B, H+2G, T, D)`, `(BT, C/2)` say how a size is computed; `B|1` is B or 1, to be broadcast; `…` stands
for any axes in front; `(B, T, C) or (B, T, H, D)` is either. `tracing` compares the comments with the true sizes of a
pass. A module's class may declare letters of its own, as in `axis_letters = {"R": "rank"}`.
"""
