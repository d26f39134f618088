"""When routes go and come back on real BIRDs after each failure: small networks, the failures, and what was seen.

`python -m bird.timelines OUT.json RUNS` (as root, in tests/) repeats the record of tests/data/bird_timelines.json.
"""

from __future__ import annotations

import json
import random
import re
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import datetime
from pathlib import Path

from bird.birds import TIMERS, Case, boxes_of, converged_routes, lay_out, node_configuration, switch_configuration
from bird.namespaces import Namespaces

from simnet.controlplane.bgp.steady import speaker_as_numbers
from simnet.controlplane.fabric import build_fabric
from simnet.model.calico import CalicoSettings, FabricMode, FabricSettings, Wiring
from simnet.model.cluster import Block, ClusterNode

HOLD_S = 9
SHORT = f"connect delay time 1; connect retry time 2; error wait time 1, 4; hold time {HOLD_S};"
RESTART_S = 8
WATCHED = "192.168.0.0/26"  # the block of n0, to which everything happens
OUTAGE_S = {  # failure -> how long it lasts
    "killed": 5,
    "stopped": 5,
    "frozen": 15,
    "link down": 15,
    "killed, graceful": 12,
    "killed, graceful, back in 3 s": 3,
    "stopped, graceful": 5,
}


def network(name: str) -> Case:
    """`switch`: three nodes on routed links. `mesh`: three on a segment, S2. `leaf-spine`: four, an AS each, S5."""
    leaves = 2 if name == "leaf-spine" else 0
    wiring = {"switch": Wiring.S1, "mesh": Wiring.S2, "leaf-spine": Wiring.S5}[name]
    settings = FabricSettings(
        mode=FabricMode.BRIDGED if name == "mesh" else FabricMode.ROUTED, leaves=leaves, spines=1 if leaves else 0,
        border_leaf=False,
    )  # fmt: skip
    nodes = tuple(
        ClusterNode(f"n{i}", (f"10.0.{i % leaves if leaves else 0}.{11 + i}",), {}) for i in range(4 if leaves else 3)
    )
    blocks = tuple(Block(f"192.168.{i}.0/26", node.name) for i, node in enumerate(nodes))
    fabric = build_fabric(nodes, (), (), settings)
    return Case(
        nodes, blocks, {}, CalicoSettings(wiring=wiring), settings, fabric, speaker_as_numbers(nodes, fabric, wiring)
    )


def run(name: str, failure: str, draw: int, *, outage_s: float | None = None, after_s: float = 14) -> dict[str, object]:
    """Let one failure happen to n0; return by box when its block went and came back, in seconds.

    Both count from the failure; None: that did not happen. `draw` decides the moment within the keepalive interval.
    """
    case, graceful = network(name), "graceful" in failure
    with Namespaces() as net:
        lay_out(case, net)
        texts = {node.name: node_configuration(case, node) for node in case.nodes}
        texts |= {box: switch_configuration(case, box) for box in boxes_of(case) if box not in texts}
        for box, text in texts.items():
            restart = f" graceful restart on; graceful restart time {RESTART_S};" if graceful and box[0] == "n" else ""
            texts[box] = text.replace(TIMERS, SHORT + restart)
        daemons = {box: net.start_bird(box, text) for box, text in texts.items()}
        shown = converged_routes(case, net, quiet_s=3)
        files = {box: net.monitor_routes(box) for box, text in shown.items() if box != "n0" and f"{WATCHED} " in text}
        time.sleep(0.5 + random.Random(draw).random() * HOLD_S / 3)
        switch, port = _port(case)
        daemon = daemons["n0"]
        failed = time.time()
        if failure == "link down":
            net.ip(switch, [f"link set {port} down"])
        else:
            number = {"killed": signal.SIGKILL, "stopped": signal.SIGTERM, "frozen": signal.SIGSTOP}
            daemon.send_signal(number[failure.split(",")[0]])
        time.sleep(OUTAGE_S[failure] if outage_s is None else outage_s)
        if failure == "link down":
            net.ip(switch, [f"link set {port} up"])
        elif failure == "frozen":
            daemon.send_signal(signal.SIGCONT)
        else:
            daemon.wait()
            net.start_bird("n0", texts["n0"], recovers=graceful)
            while not net.birdc("n0", "show", "status"):  # its process takes a while to start on a busy machine
                time.sleep(0.002)
        mended = time.time()
        time.sleep(after_s)
        return {
            "network": name, "failure": failure, "outage_s": round(mended - failed, 4),
            "boxes": {box: _gone_and_back(file.read_text(), failed) for box, file in files.items()},
        }  # fmt: skip


def _port(case: Case) -> tuple[str, str]:
    """The switch's interface toward n0: the routed port, or the port of the bridge."""
    for segment in case.fabric.segments:
        ends = segment.attachments
        mine = next((end for end in ends if end.device == "n0"), None)
        if mine is not None:
            if segment.bridge is not None:
                return segment.bridge, f"port{mine.link}"
            other = next(end for end in ends if end is not mine)
            return other.device, other.interface
    raise AssertionError


def _gone_and_back(text: str, failed: float) -> list[float | None]:
    gone = back = None
    for line in text.splitlines():
        found = re.match(rf"\[([^\]]+)\] (Deleted )?{re.escape(WATCHED)} ", line)
        if not found:
            continue
        after = round(datetime.fromisoformat(found[1]).timestamp() - failed, 4)
        if found[2] and gone is None:
            gone = after
        elif not found[2] and gone is not None and back is None:
            back = after
    return [gone, back]


def main(out: str, runs: str, workers: str = "6") -> None:
    """Record every failure of every network RUNS times."""
    names, failures = ("switch", "mesh", "leaf-spine"), tuple(OUTAGE_S)
    plan = [(name, failure, draw) for draw in range(int(runs)) for name in names for failure in failures]
    seen: list[dict[str, object]] = []
    with ProcessPoolExecutor(int(workers), max_tasks_per_child=1) as pool:  # namespaces are named after the process
        for done in as_completed([pool.submit(run, *each) for each in plan]):
            if done.exception() is None:  # a machine too busy for BIRD to come up in time tells nothing
                seen.append(done.result())
    seen.sort(key=lambda each: (str(each["network"]), str(each["failure"])))
    Path(out).write_text("[\n" + ",\n".join(json.dumps(each) for each in seen) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
