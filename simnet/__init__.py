"""simnet: a discrete-event traffic simulator of Kubernetes service networking.

    import simnet
    result = simnet.run(simnet.load_experiment("experiments/nginx-demo.yaml"))
    result.summary, result.flows, result.load, result.hops      # DataFrames
    simnet.plotting.load_spread(result, by="pod")

Everything below is imported when it is first used, so that `import simnet` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from simnet import plotting
    from simnet.analysis.result import Result, load_results
    from simnet.checked_experiment import load_experiment
    from simnet.cluster import Cluster, cluster_at, load_cluster, rules_after_run
    from simnet.engine.simulate import simulate
    from simnet.engine.trace import Trace
    from simnet.errors import InputError, ModelError, ResultError, SimnetError
    from simnet.model.scenario import Experiment
    from simnet.run_experiment import RunsFailed, run

__all__ = [
    "__version__",
    "load_experiment",
    "load_cluster",
    "cluster_at",
    "Cluster",
    "Trace",
    "run",
    "rules_after_run",
    "load_results",
    "simulate",
    "plotting",
    "Experiment",
    "Result",
    "SimnetError",
    "InputError",
    "ModelError",
    "ResultError",
    "RunsFailed",
]

_HOME = {  # name -> the module that has it
    "load_cluster": "simnet.cluster",
    "cluster_at": "simnet.cluster",
    "Cluster": "simnet.cluster",
    "Trace": "simnet.engine.trace",
    "load_experiment": "simnet.checked_experiment",
    "run": "simnet.run_experiment",
    "rules_after_run": "simnet.cluster",
    "RunsFailed": "simnet.run_experiment",
    "load_results": "simnet.analysis.result",
    "Result": "simnet.analysis.result",
    "simulate": "simnet.engine.simulate",
    "Experiment": "simnet.model.scenario",
    "SimnetError": "simnet.errors",
    "InputError": "simnet.errors",
    "ModelError": "simnet.errors",
    "ResultError": "simnet.errors",
}


def __getattr__(name: str) -> Any:
    if name == "plotting":
        return import_module("simnet.plotting")
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'simnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
