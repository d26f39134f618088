"""Stations of the event-by-event simulation: a queue and its servers, told of each packet as it arrives."""

from __future__ import annotations

from collections import Counter

import simpy
from reference import forwarding

WORD = 2**64


class At(simpy.Event):
    """Something that happens at an instant; among equal instants by rank, after everything else."""

    def __init__(self, env, time_ps, rank):
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, priority=2 + rank, delay=time_ps - env.now)


class Station:
    def __init__(self, servers=1, limit_packets=None, limit_bytes=None):
        self.free_ps = [0] * servers
        self.waiting = []  # (start of service, bytes)
        self.limit_packets, self.limit_bytes = limit_packets, limit_bytes

    def arrive(self, now_ps, service_ps, size_bytes):
        """When the service of a packet that arrives now starts; None: there is no room."""
        self.waiting = [each for each in self.waiting if each[0] > now_ps]
        server = self.free_ps.index(min(self.free_ps))
        start_ps = max(now_ps, self.free_ps[server])
        if start_ps > now_ps:
            if self.limit_packets is not None and len(self.waiting) + 1 > self.limit_packets:
                return None
            if self.limit_bytes is not None and sum(each[1] for each in self.waiting) + size_bytes > self.limit_bytes:
                return None
            self.waiting.append((start_ps, size_bytes))
        self.free_ps[server] = start_ps + service_ps
        return start_ps


class Journey:
    """What a packet and its reply have spent, and where a queue dropped one of them."""

    def __init__(self, rank, leader):
        self.rank = rank
        self.leader = leader  # the end of the flow's first packet; None: it is that
        self.parts = Counter()
        self.lost_at, self.lost_ps = "", None


class Queues:
    """The stations of a scenario's cluster, made as they are first used."""

    def __init__(self, env, cluster, scenario, service_ps):
        self.env, self.cluster, self.service_ps = env, cluster, service_ps
        self.cpu, self.service = scenario.cluster.cpu, scenario.workload.service
        self.stations = {}
        self.cores = {node.name: self.cpu.cores or node.cpus for node in cluster.nodes} if self.cpu else {}

    def visit(self, journey, name, kind, service_ps, *, size_bytes=0, delay_ps=0, **station):
        """Let a packet go through a station. One that a queue has dropped goes on without taking time or room."""
        if journey.lost_at:
            return
        held = self.stations.setdefault(name, Station(**station))
        now_ps = self.env.now
        start_ps = held.arrive(now_ps, service_ps, size_bytes)
        if start_ps is None:
            journey.lost_at, journey.lost_ps = name, now_ps
            if journey.leader is not None:  # what is left of it must not come before the first packet of its flow
                yield journey.leader
            return
        journey.parts[f"{kind} queue"] += start_ps - now_ps
        journey.parts[kind] += service_ps
        journey.parts["propagation"] += delay_ps
        yield At(self.env, start_ps + service_ps + delay_ps, journey.rank)

    def cross(self, packet, wire, tunnel_bytes):
        link = self.cluster.fabric.links[wire // 2]
        size_bytes = packet.size_bytes + tunnel_bytes + link.queue.header_bytes
        return self.visit(
            packet.journey, self.cluster.fabric.direction_names()[wire], "link",
            -(-8 * size_bytes * 10**12 // link.rate_bps), size_bytes=size_bytes, delay_ps=link.delay_ps,
            limit_packets=link.queue.limit_packets, limit_bytes=link.queue.limit_bytes,
        )  # fmt: skip

    def handle(self, packet, node, header, rules, endpoint_rules, has_rules):
        """A core of a node takes a packet."""
        if self.cpu is None:
            return
        costs, scan_ps = self.cpu, 0
        service_ps = costs.established_ps if has_rules else costs.base_ps
        if packet.opens and not packet.is_reply and has_rules:
            scan_ps = (rules - endpoint_rules) * costs.per_rule_ps + endpoint_rules * costs.per_endpoint_rule_ps
            service_ps = costs.new_ps + scan_ps
        core = (receive_hash(header, packet.flow.protocol) >> 32) * self.cores[node] >> 32
        yield from self.visit(packet.journey, f"{node} cpu {core}", "cpu", service_ps)
        if not packet.journey.lost_at:
            packet.journey.parts["rules"] += scan_ps

    def serve(self, packet):
        service = self.service
        limits = {"servers": service.workers, "limit_packets": service.queue_limit} if service else {}
        service_ps = self.service_ps(*(packet.work or (packet.flow.made.flow_id, packet.number)))
        return self.visit(packet.journey, packet.place, "pod", service_ps, **limits)


def receive_hash(header, protocol):
    ends = [
        forwarding.address_hash(address) + (port + 1) * 0xD1B54A32D192ED03
        for address, port in ((header.source, header.source_port), (header.destination, header.destination_port))
    ]
    return forwarding.mix((forwarding.mix(ends[0] % WORD) + ends[1] + protocol * 0x9E3779B97F4A7C15) % WORD)
