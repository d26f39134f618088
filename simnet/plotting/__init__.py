"""Figures of a result, one call each: `ax` in and out; `ax.figure` shows or saves it."""

from simnet.plotting.comparison import delay_ccdf, efficiency, efficiency_figure, hop_counts
from simnet.plotting.convergence import convergence_figure, convergence_timeline
from simnet.plotting.events import load_over_time, losses_over_time, packets_lost_over_time
from simnet.plotting.figures import save_figures
from simnet.plotting.latency import latency_ccdf, latency_over_load, latency_over_time, latency_parts
from simnet.plotting.report import write_report
from simnet.plotting.spread import load_spread
from simnet.plotting.stations import link_heat_map, stations_over_time
from simnet.plotting.style import figure_style
from simnet.plotting.topology import topology

__all__ = [
    "load_spread",
    "hop_counts",
    "efficiency",
    "efficiency_figure",
    "topology",
    "delay_ccdf",
    "latency_ccdf",
    "latency_over_load",
    "latency_parts",
    "latency_over_time",
    "stations_over_time",
    "link_heat_map",
    "convergence_timeline",
    "convergence_figure",
    "losses_over_time",
    "packets_lost_over_time",
    "load_over_time",
    "save_figures",
    "write_report",
    "figure_style",
]
