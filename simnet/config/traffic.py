"""`workload:`, `variants:` and `run:` as values of the model."""

from __future__ import annotations

import dataclasses
from typing import Any

from simnet.config.documents import FieldPath
from simnet.config.experiment_models import ClientsModel, RunModel, VariantModel, WorkloadModel
from simnet.config.keep_alive import fits_requests, gap_of, keep_alive_of
from simnet.config.kubernetes_fields import parse_cidr
from simnet.config.kubernetes_source import describe
from simnet.config.reading import Reading
from simnet.config.trace_file import read_trace
from simnet.errors import InputError, Problem
from simnet.model.scenario import Entry, RunSpec, Variant
from simnet.model.workload import (
    SCTP,
    TCP,
    UDP,
    ClientOrigin,
    ClientPopulation,
    EntryChoice,
    EntryChoiceKind,
    FlowShape,
    PodService,
    Workload,
)

PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP}


def workload_of(model: WorkloadModel, reading: Reading, path: FieldPath, duration_ps: int) -> Workload | None:
    """Return the workload, its trace read; None with problems reported."""
    clients = clients_of(model.clients, reading, (*path, "clients"))
    if not fits_requests(model, reading, path):
        return None
    arrivals: Any = model.flows.arrivals  # checked: given, unless there are requests
    if isinstance(arrivals, str):
        file = arrivals
        try:
            if file not in reading.traces:
                reading.traces[file] = read_trace(reading.folder / file)
                reading.files[str(reading.folder / file)] = None
            arrivals = reading.traces[file]
        except InputError as error:
            where = reading.document.locate((*path, "flows", "arrivals", "trace"))
            for problem in error.problems:
                at = problem.where if problem.where.line else where
                reading.problems.append(Problem(at, problem.field, problem.found, problem.expected, problem.fix))
            return None
    if clients is None:
        return None
    shape = FlowShape(
        packet_count=model.flows.packets,
        packet_size_bytes=model.flows.packet_size,
        gap_ps=model.flows.gap if model.requests is None else gap_of(model.requests),
        reply_size_bytes=None if model.flows.reply_size == "none" else model.flows.reply_size,
    )
    try:
        if model.requests is not None:
            arrivals = keep_alive_of(model.requests, duration_ps)
        service = None
        if model.service is not None:
            service = PodService(model.service.time, model.service.workers, model.service.queue_limit)
        return Workload(arrivals, clients, shape, PROTOCOLS[model.flows.protocol], service)
    except ValueError as error:
        section = (*path, "flows" if model.requests is None else "requests")
        reading.refuse(section, str(error), "a workload that can be drawn", "change the field that is named")
        return None


def clients_of(model: ClientsModel, reading: Reading, path: FieldPath) -> ClientPopulation | None:
    """Return the client population: outside networks, `pods`, `nodes`, or pods and nodes by name."""
    origin, names = ClientOrigin.OUTSIDE, []
    if model.from_ == ["pods"]:
        origin = ClientOrigin.PODS
    elif model.from_ == ["nodes"]:
        origin = ClientOrigin.NODES
    elif all(text.startswith("pod:") for text in model.from_):
        origin, names = ClientOrigin.PODS, [_namespaced(text.removeprefix("pod:")) for text in model.from_]
    elif all(text.startswith("node:") for text in model.from_):
        origin, names = ClientOrigin.NODES, [text.removeprefix("node:") for text in model.from_]
    else:
        for text in model.from_:
            try:
                names.append(parse_cidr(text if "/" in text else f"{text}/{128 if ':' in text else 32}"))
            except ValueError:
                reading.refuse(
                    (*path, "from"),
                    describe(text),
                    "a network, pods, nodes, or a list of pod:NAMESPACE/NAME or node:NAME",
                    "for example 198.51.100.0/24",
                )
                return None
    return ClientPopulation(model.count, origin, tuple(names), model.skew)


def _namespaced(name: str) -> str:
    return name if "/" in name else f"default/{name}"


def variant_of(name: str, model: VariantModel, workload: Workload, reading: Reading, path: FieldPath) -> Variant | None:
    """Return one variant; None with problems reported."""
    if not _fits_entry(model, reading, path):
        return None
    choice = model.node_choice or model.address_choice
    fixed = model.node or model.address
    if fixed is not None and choice not in (None, "fixed"):
        reading.refuse(
            path, f"{choice} with {fixed}", "nodeChoice: fixed where a node is named", "remove one of the two"
        )
        return None
    if fixed is None and choice == "fixed":
        reading.refuse(path, "a fixed choice of nothing", "node: NAME or address: IP beside it", "add `node: NAME`")
        return None
    kind = EntryChoiceKind.FIXED if fixed is not None else EntryChoiceKind(choice or "random")
    if model.port is not None and (isinstance(model.port, bool) or not isinstance(model.port, int | str)):
        reading.refuse((*path, "port"), describe(model.port), "a port's name or number", "for example 8088")
        return None
    clients = None
    if model.clients is not None:
        clients = clients_of(model.clients, reading, (*path, "clients"))
        if clients is None:
            return None
        if "count" not in model.clients.model_fields_set:
            clients = dataclasses.replace(clients, count=workload.clients.count)
        if "skew" not in model.clients.model_fields_set:
            clients = dataclasses.replace(clients, skew=workload.clients.skew)
        if clients.count != workload.clients.count:
            reading.refuse(
                (*path, "clients", "count"),
                str(clients.count),
                f"{workload.clients.count}, as in workload.clients: variants meet the same clients",
                "leave count out",
            )
            return None
    return Variant(
        name=name,
        entry=Entry(model.entry),
        service=_namespaced(model.service),
        port=model.port,
        choice=EntryChoice(kind, fixed),
        clients=clients,
        position=reading.document.locate(path),
    )


def _fits_entry(model: VariantModel, reading: Reading, path: FieldPath) -> bool:
    """Whether the variant chooses among what its entry has: nodes for NodePort, addresses for external IPs."""
    before = len(reading.problems)
    of_addresses = model.entry in ("ExternalIP", "LoadBalancerIP")
    for key, fits, what in (
        ("nodeChoice", model.entry == "NodePort", "entry NodePort"),
        ("node", model.entry == "NodePort", "entry NodePort"),
        ("addressChoice", of_addresses, "entry ExternalIP or LoadBalancerIP"),
        ("address", of_addresses, "entry ExternalIP or LoadBalancerIP"),
    ):
        value = {
            "nodeChoice": model.node_choice,
            "node": model.node,
            "addressChoice": model.address_choice,
            "address": model.address,
        }[key]
        if value is not None and not fits:
            other = {"nodeChoice": "addressChoice", "node": "address"}.get(key) if of_addresses else None
            fix = f"use {other}" if other else f"remove {key}"
            reading.refuse((*path, key), f"{key} with entry {model.entry}", f"{key} with {what} only", fix, of_key=True)
    return len(reading.problems) == before


def run_spec(model: RunModel, reading: Reading, path: FieldPath) -> RunSpec:
    """Return the run's length, repetition and seed."""
    if model.warmup >= model.duration:
        reading.refuse((*path, "warmup"), "a warm-up as long as the run", "less than the duration", "shorten it")
    limit = model.recent_limit
    return RunSpec(
        duration_ps=model.duration,
        warmup_ps=model.warmup,
        repeat=model.repeat,
        seed=model.seed,
        statistic_mode=model.statistic_mode,
        recent_limit=None if limit == "unlimited" else int(limit),
    )
