"""The plot families. A plot plays its scenes and returns the morals that fit it."""

from lab.data.tales.plots.belongings import accident, contest, lost_and_found, surprise, swap, turns
from lab.data.tales.plots.deeds import building, journey, learning, promise, rescue, storm

PLOTS = (lost_and_found, turns, accident, surprise, swap, contest,
         promise, journey, learning, storm, rescue, building)
