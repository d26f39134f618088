"""The fabric as a manifest keeps it, for the topology plot and the load of links.

    {"devices": [{"name": "A", "kind": "node", "role": ""}, ...],
     "links":   [{"a": "A", "b": "tor", "rate_bps": 10000000000, "delay_ps": 5000000}, ...],
     "pods":    [{"pod": "default/nginx-0", "node": "A", "link": 3}, ...]}

`kind` is node, switch or clients; `link` is a position in `links`; a link direction is named `a->b`, as in
the `load` table.
"""

from __future__ import annotations

from typing import Any

from simnet.model.fabric import Fabric


def topology_of(fabric: Fabric) -> dict[str, Any]:
    """Return the part of a fabric that a manifest keeps, as plain JSON values."""
    return {
        "devices": [{"name": d.name, "kind": d.kind.value, "role": d.role} for d in fabric.devices],
        "links": [
            {"a": link.a, "b": link.b, "rate_bps": link.rate_bps, "delay_ps": link.delay_ps} for link in fabric.links
        ],
        "pods": [{"pod": pod.pod, "node": pod.node, "link": pod.link} for pod in fabric.pods],
    }
