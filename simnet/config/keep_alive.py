"""`workload.requests:` as values of the model: pools of connections, and the time between their requests."""

from __future__ import annotations

from simnet.config.documents import FieldPath
from simnet.config.experiment_models import RequestsModel, WorkloadModel
from simnet.config.reading import Reading
from simnet.model.workload import MAX_PACKETS_PER_FLOW, ClosedLoop, Distribution, Exponential, KeepAlive
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
    _fits_loop(model, reading, path)
    if model.clients.skew is not None:
        reading.refuse(
            (*path, "clients", "skew"), "skew beside requests", "clients that are all alike", "remove skew", of_key=True
        )
    return len(reading.problems) == before


def _fits_loop(model: WorkloadModel, reading: Reading, path: FieldPath) -> None:
    """Report keys that only clients who wait have, or cannot have."""
    requests = model.requests
    assert requests is not None
    given = requests.model_fields_set
    if not requests.closed_loop:
        for key in ("timeout", "retries", "backoff"):
            if key in given:
                reading.refuse(
                    (*path, "requests", key),
                    f"{key} without closedLoop",
                    "clients that wait for answers",
                    f"add `closedLoop: true`, or remove {key}",
                    of_key=True,
                )
        return
    if requests.rate_per_client is not None:
        reading.refuse(
            (*path, "requests", "ratePerClient"),
            "ratePerClient beside closedLoop",
            "thinkTime: clients that wait have no rate of their own",
            "for example thinkTime: {exponential: 1ms}",
            of_key=True,
        )
    if requests.timeout is None:
        for key in ("retries", "backoff"):
            if key in given:
                reading.refuse(
                    (*path, "requests", key), f"{key} without timeout", "a client that gives up",
                    f"add for example `timeout: 1s`, or remove {key}", of_key=True,
                )  # fmt: skip
    if model.flows.protocol == "udp":
        reading.refuse(
            (*path, "flows", "protocol"), "udp beside closedLoop", "tcp or sctp: clients that wait keep connections",
            "remove `protocol: udp`, or closedLoop", of_key=True,
        )  # fmt: skip
    if model.flows.reply_size == "none":
        reading.refuse(
            (*path, "flows", "replySize"), "replySize: none beside closedLoop", "answers to wait for",
            "remove `replySize: none`, or closedLoop", of_key=True,
        )  # fmt: skip


def keep_alive_of(model: RequestsModel, duration_ps: int) -> KeepAlive | ClosedLoop:
    """Return the clients' pools. Raises ValueError, in words for a user, where a value is out of range."""
    most, age_ps = model.per_connection or MAX_PACKETS_PER_FLOW, model.max_connection_age
    if not model.closed_loop:
        return KeepAlive(model.connections, duration_ps, most, age_ps)
    waiting = (model.timeout, model.retries, model.backoff)
    return ClosedLoop(model.connections, duration_ps, most, age_ps, *waiting)


def gap_of(model: RequestsModel) -> Distribution:
    """Return the time between the requests of one connection."""
    if model.rate_per_client is None:
        assert model.think_time is not None
        gap: Distribution = model.think_time
        return gap
    # A Poisson process dealt out at random to so many connections is as many independent ones.
    return Exponential(model.connections * PS_PER_S / model.rate_per_client)
