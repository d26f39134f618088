"""`workload.requests:` as values of the model: pools of connections, and the time between their requests."""

from __future__ import annotations

from simnet.config.documents import FieldPath
from simnet.config.experiment_models import RequestsModel, WorkloadModel
from simnet.config.reading import Reading
from simnet.model.workload import MAX_PACKETS_PER_FLOW, Distribution, Exponential, KeepAlive
from simnet.units import PS_PER_S


def fits_requests(model: WorkloadModel, reading: Reading, path: FieldPath) -> bool:
    """Whether the file says once when requests come: in `flows:`, or in `requests:`; problems are reported."""
    flows, requests = model.flows, model.requests
    if requests is None:
        if flows.arrivals is None:
            reading.refuse((*path, "flows"), "no arrivals", "the key arrivals", "add `arrivals:`, or `requests:` above")
        return flows.arrivals is not None
    before = len(reading.problems)
    for key in ("arrivals", "packets", "gap"):
        if key in flows.model_fields_set:
            reading.refuse(
                (*path, "flows", key),
                f"{key} beside requests",
                "the one or the other",
                f"remove {key}: requests decide on it",
                of_key=True,
            )
    if (requests.think_time is None) == (requests.rate_per_client is None):
        found = "neither thinkTime nor ratePerClient" if requests.think_time is None else "thinkTime and ratePerClient"
        reading.refuse((*path, "requests"), found, "one of the two", "for example thinkTime: {exponential: 1ms}")
    if model.clients.skew is not None:
        reading.refuse(
            (*path, "clients", "skew"), "skew beside requests", "clients that are all alike", "remove skew", of_key=True
        )
    return len(reading.problems) == before


def keep_alive_of(model: RequestsModel, duration_ps: int) -> KeepAlive:
    """Return the clients' pools. Raises ValueError, in words for a user, where a value is out of range."""
    return KeepAlive(
        connections_per_client=model.connections,
        until_ps=duration_ps,
        requests_per_connection=model.per_connection or MAX_PACKETS_PER_FLOW,
        max_age_ps=model.max_connection_age,
    )


def gap_of(model: RequestsModel) -> Distribution:
    """Return the time between the requests of one connection."""
    if model.rate_per_client is None:
        assert model.think_time is not None
        gap: Distribution = model.think_time
        return gap
    # A Poisson process dealt out at random to so many connections is as many independent ones.
    return Exponential(model.connections * PS_PER_S / model.rate_per_client)
