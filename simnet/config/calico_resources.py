"""Calico's resources, as `calicoctl get -o yaml` or `kubectl get` prints them, as typed values.

Both API groups are read: projectcalico.org/v3 (calicoctl, Calico's API server) and crd.projectcalico.org/v1 (kubectl).
A field that the simulation passes over where it would change a packet's way is a warning that says so.
Source: projectcalico/calico, api/pkg/apis/projectcalico/v3 and libcalico-go/lib/apis/{v3,crd.projectcalico.org/v1}.
"""

from __future__ import annotations

from collections.abc import Callable

from simnet.config.calico_ipam import read_affinity, read_block
from simnet.config.calico_node import read_node
from simnet.config.calico_peers import read_configuration, read_filter, read_peer
from simnet.config.calico_pools import read_pool
from simnet.config.kubernetes_source import Source
from simnet.model.calico import CalicoValue
from simnet.model.kubernetes import Pairs


def read_calico(source: Source, name: str, labels: Pairs) -> CalicoValue | None:
    """Return what a resource says, or report every field that is wrong and return None.

    None without a report for an object that has no spec where one is needed, as `kubectl delete -f` takes it.
    """
    return _READERS[source.kind](source, name, labels)


_READERS: dict[str, Callable[[Source, str, Pairs], CalicoValue | None]] = {
    "IPPool": read_pool,
    "BGPConfiguration": read_configuration,
    "BGPPeer": read_peer,
    "BGPFilter": read_filter,
    "BlockAffinity": read_affinity,
    "IPAMBlock": read_block,
    "Node": read_node,
}
