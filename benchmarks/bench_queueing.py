"""The queue solver against event loops, on one workload, all in the same run; and the solver alone where it is hard.

Run: python benchmarks/bench_queueing.py [--ns-python PATH] [--packets N]. With an interpreter that has numba, the event
loop that it compiles is measured beside the windows of numpy. One core; CPU time, so that neighbours count
less. 64 clients with Poisson arrivals through one switch to 8 workers with 2 pods each: 3 or 5 FIFO links of 10 Gbit/s
and 5 us a packet, the busiest at half load. A contender that is slow gets fewer packets of the same arrivals. Prints
rates and ratios, checks that all exact contenders agree to the picosecond, writes benchmarks/results/queueing.json and
adds a line to queueing-history.jsonl there.

`--ns-python`: the interpreter of a virtual environment that holds ns.py (`pip install ns.py`); left out without.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import simpy

from simnet.dataplane.queueing.event_loop import IS_COMPILED
from simnet.dataplane.queueing.event_network import EventNetwork
from simnet.dataplane.queueing.solver import QueueNetwork
from simnet.dataplane.queueing.stations import (
    CPU,
    DRAWN,
    FIXED,
    LINK,
    POD,
    REPLY_SIZE,
    REQUEST_SIZE,
    Injected,
    Itineraries,
    Stations,
)
from simnet.engine.simulate import prepare, simulate
from simnet.model.calico import CalicoSettings, FabricSettings
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import ContainerPort, Objects, Pod, Service, ServicePort
from simnet.model.scenario import ClusterSpec, Entry, NodeSpec, RunSpec, Scenario, Variant
from simnet.model.workload import ClientPopulation, ClosedLoop, Constant, Exponential, FlowShape, PodService, Workload

HERE = Path(__file__).parent
CLIENTS, WORKERS, PODS, RATE_BPS, DELAY_PS = 64, 8, 16, 10**10, 5_000_000
PIECE = 65_536  # packets handed to the solver at once


def workload(
    packets: int, utilisation: float = 0.5, *, sizes: bool = False, limit_packets: int = -1, seed: int = 1
) -> tuple[Stations, Itineraries, Injected]:
    """Stations: clients' links, then switch to workers, workers to switch, workers to pods."""
    rng = np.random.default_rng(seed)
    entry, pod = rng.integers(0, WORKERS, CLIENTS), rng.integers(0, PODS, CLIENTS)
    down, up, veth = CLIENTS, CLIENTS + WORKERS, CLIENTS + 2 * WORKERS
    count = veth + PODS
    ways = []
    for client in range(CLIENTS):
        owner = pod[client] * WORKERS // PODS
        onward = [] if owner == entry[client] else [up + entry[client], down + owner]
        ways.append([client, down + entry[client], *onward, veth + pod[client]])
    flat = np.concatenate(ways).astype(np.int32)
    busiest = np.bincount(flat, minlength=count).max()
    of = np.ones(count, np.int64)
    stations = Stations(
        kind=np.zeros(count, np.uint8),
        servers=of.astype(np.int32),
        rate_bps=of * RATE_BPS,
        delay_ps=of * DELAY_PS,
        limit_packets=of * limit_packets,
        limit_bytes=-of,
    )
    itineraries = Itineraries(
        start=np.cumsum([0, *map(len, ways)]),
        station=flat,
        work_of=np.zeros(len(flat), np.uint8),
        extra_bytes=np.zeros(len(flat), np.int32),
        fixed_ps=np.zeros(len(flat), np.int64),
    )
    size = rng.choice([64, 576, 1_250, 1_500], packets) if sizes else np.full(packets, 1_250)
    mean_ps = 8e12 * float(size.mean()) / RATE_BPS
    gap_ps = rng.exponential(mean_ps * busiest / (utilisation * CLIENTS), packets)
    injected = Injected(
        packet=np.arange(packets),
        time_ps=np.cumsum(gap_ps).astype(np.int64),
        way=rng.integers(0, CLIENTS, packets).astype(np.int32),
        request_bytes=size.astype(np.int32),
        reply_bytes=np.zeros(packets, np.int32),
        drawn_ps=np.zeros(packets, np.int64),
    )
    return stations, itineraries, injected


def first(injected: Injected, low: int, high: int) -> Injected:
    """Packets low ... high - 1."""
    names = ("packet", "time_ps", "way", "request_bytes", "reply_bytes", "drawn_ps")
    return Injected(*(getattr(injected, name)[low:high] for name in names))


def by_solver(stations: Stations, ways: Itineraries, injected: Injected, network=QueueNetwork) -> np.ndarray:
    """A solver, fed piece by piece; int64[n], when each packet left."""
    queues = network(stations)
    left_ps = np.empty(len(injected.packet), np.int64)
    for low in range(0, len(left_ps), PIECE):
        piece = first(injected, low, low + PIECE)
        left = queues.advance(piece, ways, int(piece.time_ps[-1]))
        left_ps[left.packet] = left.time_ps
    left = queues.finish()
    left_ps[left.packet] = left.time_ps
    return left_ps


def by_simpy(stations: Stations, ways: Itineraries, injected: Injected) -> np.ndarray:
    """A process a packet, a Resource a link: how one would write it in SimPy."""
    env = simpy.Environment()
    links = [simpy.Resource(env) for _ in range(len(stations))]
    left_ps = np.empty(len(injected.packet), np.int64)

    def packet(number: int, way: int, service_ps: int):
        for row in range(ways.start[way], ways.start[way + 1]):
            station = int(ways.station[row])
            with links[station].request() as turn:
                yield turn
                yield env.timeout(service_ps)
            yield env.timeout(DELAY_PS)
        left_ps[number] = env.now

    def source():
        service_ps = 8 * 10**12 * injected.request_bytes.astype(np.int64) // RATE_BPS
        rows = zip(injected.time_ps.tolist(), injected.way.tolist(), service_ps.tolist(), strict=True)
        for number, (time_ps, way, service) in enumerate(rows):
            yield env.timeout(time_ps - env.now)
            env.process(packet(number, way, service))

    env.process(source())
    env.run()
    return left_ps


def c_loop() -> ctypes.CDLL | None:
    """Compile the loop in C; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    folder = tempfile.mkdtemp()
    library = Path(folder) / "loop.so"
    source = HERE / "queueing_loop.c"
    subprocess.run([compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.run.restype = ctypes.c_int64
    return loaded


def by_c(loop: ctypes.CDLL, stations: Stations, ways: Itineraries, injected: Injected) -> np.ndarray:
    """The event loop in C."""
    left_ps = np.empty(len(injected.packet), np.int64)
    service_ps = 8 * 10**12 * injected.request_bytes.astype(np.int64) // RATE_BPS
    columns = (injected.time_ps, injected.way, service_ps, ways.start, ways.station, stations.delay_ps)
    pointers = [column.ctypes.data_as(ctypes.c_void_p) for column in (*columns, left_ps)]
    assert loop.run(ctypes.c_int64(len(left_ps)), *pointers[:6], ctypes.c_int64(len(stations)), pointers[6]) > 0
    return left_ps


NS = """
import json, sys, time
import numpy as np, simpy
from ns.packet.packet import Packet
from ns.port.port import Port
from ns.port.wire import Wire
data = np.load(sys.argv[1])
env = simpy.Environment()
start, station, way, times = (data[name].tolist() for name in ("start", "station", "way", "time_ps"))
class Next:
    def __init__(self, ports): self.ports = ports
    def put(self, packet):
        packet.at += 1
        row = start[packet.flow_id] + packet.at
        if row < start[packet.flow_id + 1]: self.ports[station[row]].put(packet)
        else: left.append(packet.packet_id)
left, ports = [], []
onward = Next(ports)
for number in range(int(data["stations"])):
    port, wire = Port(env, 1e10), Wire(env, lambda: 5e-6)
    port.out, wire.out = wire, onward
    ports.append(port)
def source():
    for number, (at, flow) in enumerate(zip(times, way)):
        yield env.timeout(max(at * 1e-12 - env.now, 0))
        packet = Packet(env.now, 1250, number, flow_id=flow)
        packet.at = -1
        onward.put(packet)
env.process(source())
began = time.process_time()
env.run(until=times[-1] * 1e-12 + 1e-3)
spent = time.process_time() - began
assert len(left) == len(times), len(left)
print(json.dumps(spent))
"""


def by_ns(python: str, ways: Itineraries, injected: Injected, stations: int) -> float:
    """ns.py's ports and wires; returns the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        data, script = Path(folder) / "workload.npz", Path(folder) / "run.py"
        np.savez(
            data, start=ways.start, station=ways.station, way=injected.way, time_ps=injected.time_ps, stations=stations
        )
        script.write_text(NS)
        run = subprocess.run([python, script, data], check=True, capture_output=True, text=True)
        return float(json.loads(run.stdout.splitlines()[-1]))


def seconds(call, *arguments) -> tuple[float, np.ndarray]:
    """CPU seconds of a call, and what it returned."""
    began = time.process_time()
    result = call(*arguments)
    return time.process_time() - began, result


def closed_loop(network=QueueNetwork, clients: int = 1_000, requests: int = 50) -> float:
    """Requests a second of clients that think 1 ms between an answer and the next request, 7 visits a request."""
    uplink, downlink, down, up = 0, 1, 2, 2 + WORKERS
    cpu, pods = up + WORKERS, up + 2 * WORKERS
    count = pods + PODS
    kind = np.array([LINK] * cpu + [CPU] * WORKERS + [POD] * PODS, dtype=np.uint8)
    of = np.ones(count, np.int64)
    is_link = kind == LINK
    stations = Stations(
        kind, of.astype(np.int32), is_link * 10 * RATE_BPS, is_link * DELAY_PS, limit_packets=-of, limit_bytes=-of
    )
    owner = np.arange(PODS) * WORKERS // PODS
    ways = [
        [uplink, down + node, cpu + node, pods + pod, cpu + node, up + node, downlink] for pod, node in enumerate(owner)
    ]
    itineraries = Itineraries(
        start=np.arange(PODS + 1) * 7,
        station=np.concatenate(ways).astype(np.int32),
        work_of=np.tile([REQUEST_SIZE, REQUEST_SIZE, FIXED, DRAWN, FIXED, REPLY_SIZE, REPLY_SIZE], PODS).astype(
            np.uint8
        ),
        extra_bytes=np.zeros(7 * PODS, np.int32),
        fixed_ps=np.tile([0, 0, 300_000, 0, 300_000, 0, 0], PODS),
    )
    rng = np.random.default_rng(2)
    total = clients * requests
    number = np.arange(total)
    think_ps = rng.exponential(1e9, total).astype(np.int64) + 1
    injected = Injected(
        packet=number,
        time_ps=np.where(number < clients, rng.integers(0, 10**9, total), think_ps),
        way=rng.integers(0, PODS, total).astype(np.int32),
        request_bytes=np.full(total, 300, np.int32),
        reply_bytes=np.full(total, 1_200, np.int32),
        drawn_ps=rng.exponential(8e6, total).astype(np.int64),
        after=np.where(number < clients, -1, number - clients),
    )
    queues = network(stations)
    began = time.process_time()
    left = queues.advance(injected, itineraries, 10**15)
    spent = time.process_time() - began
    assert len(left.packet) == total
    return total / spent


def whole_closed_loop(clients: int = 1_000, duration_ps: int = 200 * 10**9, **changes: object) -> float:
    """Requests a second of the whole engine, clients to tables; they think 1 ms between an answer and the next request.

    16 pods on 8 nodes, called at their own addresses: 7 visits a request, pods about half busy. `changes`: of the loop.
    """
    loop = ClosedLoop(1, duration_ps, **{"timeout_ps": 10**12, "retries": 1} | changes)
    web = Service("d", "web", ports=(ServicePort("http", "TCP", 80, 8080),), selector=(("app", "web"),))
    nodes = tuple(NodeSpec(f"n{number}", (f"10.0.0.{10 + number}",)) for number in range(8))
    ports = (ContainerPort("", 8080),)
    pods = tuple(
        Pod("d", f"p{n}", labels=(("app", "web"),), node_name=f"n{n % 8}", container_ports=ports) for n in range(16)
    )
    fabric = FabricSettings(link_rate_bps=10**11, client_link_rate_bps=10**11)
    cluster = ClusterSpec(
        Objects(services=(web,), pods=pods), nodes, KubeProxyConfiguration(), CalicoSettings(), fabric
    )
    shape = FlowShape(Constant(1), Constant(300), Exponential(1e9), Constant(1_200))
    calls = ClientPopulation(clients, addresses=("198.51.0.0/16",))
    workload = Workload(loop, calls, shape, service=PodService(Exponential(8e6)))
    scenario = Scenario(cluster, workload, Variant("v", Entry.POD, "d/web"), RunSpec(duration_ps), "summary")
    compiled = prepare(scenario, seed=1)
    best = 0.0
    for _ in range(3):
        began = time.process_time()
        sent = simulate(scenario, seed=1, compiled=compiled).totals["sent"]
        best = max(best, sent / (time.process_time() - began))
    return best


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ns-python")
    parser.add_argument("--packets", type=int, default=1_000_000)
    options = parser.parse_args()
    packets = options.packets
    given = workload(packets)
    rates: dict[str, float] = {}
    solvers = {"solver": QueueNetwork}
    if IS_COMPILED:
        solvers["solver, compiled"] = EventNetwork
        by_solver(*workload(1_000), EventNetwork)  # numba compiles
    exact = np.zeros(0)
    for name, network in solvers.items():
        spent, left_ps = min((seconds(by_solver, *given, network) for _ in range(3)), key=lambda row: row[0])
        rates[name] = packets / spent
        exact = exact if len(exact) else left_ps
        np.testing.assert_array_equal(left_ps, exact)
    loop = c_loop()
    if loop is not None:
        spent, left_ps = seconds(by_c, loop, *given)
        np.testing.assert_array_equal(left_ps, exact)
        rates["event loop in C"] = packets / spent
    few = min(packets, 20_000)
    short = (given[0], given[1], first(given[2], 0, few))
    spent, left_ps = seconds(by_simpy, *short)
    # SimPy serves packets that arrive at one instant in the order of its events, not of their ids.
    otherwise = float((left_ps != by_solver(*short)).mean())
    rates["SimPy"] = few / spent
    if options.ns_python:
        rates["ns.py"] = few / by_ns(options.ns_python, short[1], short[2], len(given[0]))
    hard = {
        "utilisation 0.95": {"utilisation": 0.95},
        "queues of 100 packets, utilisation 0.95": {"utilisation": 0.95, "limit_packets": 100},
        "four sizes": {"sizes": True},
    }
    for case, change in hard.items():
        harder = workload(packets, **change)
        for name, network in solvers.items():
            rates[f"{name}, {case}"] = packets / seconds(by_solver, *harder, network)[0]
    result = {
        "packets": packets,
        "visits_per_packet": round(float(np.diff(given[1].start)[given[2].way].mean()), 2),
        "packets_per_s": {name: round(rate) for name, rate in rates.items()},
        **{
            f"{name.replace(', ', '_')}_is_faster_than": {
                other: round(rates[name] / rates[other], 2)
                for other in ("event loop in C", "SimPy", "ns.py")
                if other in rates
            }
            for name in solvers
        },
        "share_of_packets_that_simpy_orders_otherwise": otherwise,
        "closed_loop_requests_per_s": {
            **{f"{name} alone, chains known ahead": round(closed_loop(network)) for name, network in solvers.items()},
            "whole engine": round(whole_closed_loop()),
            "whole engine, a request a connection": round(whole_closed_loop(requests_per_connection=1)),
            "whole engine, connections of 5 ms": round(whole_closed_loop(max_age_ps=5 * 10**9)),
            "whole engine, 100 clients": round(whole_closed_loop(100)),
        },
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}",
    }
    json.dump(result, sys.stdout, indent=2)
    print()
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "queueing.json").write_text(json.dumps(result, indent=2) + "\n")
    with (HERE / "results" / "queueing-history.jsonl").open("a") as history:
        history.write(json.dumps({"date": datetime.date.today().isoformat(), **result}) + "\n")


if __name__ == "__main__":
    main()
