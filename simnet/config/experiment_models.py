"""The shape of an experiment file and of a cluster file: every key, its type and its default.

Kubernetes and Calico fields keep their own names and meaning. Unknown keys are errors. What a key means for the
simulation is decided in `experiment.py`; here it is only read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from simnet.config.file_model import FileModel, Name, Text, whole_number
from simnet.config.kubernetes_models import KubeApiServerModel, KubeControllerManagerModel, KubeletModel, KubeProxyModel
from simnet.config.quantities import (
    Address,
    ArrivalField,
    BitRate,
    Cidr,
    Counts,
    Duration,
    Durations,
    Frequency,
    OneOrMore,
    PositiveDuration,
    QueueLimit,
    ReplySizes,
    Size,
    Sizes,
    Skew,
)
from simnet.model.workload import MAX_PACKETS_PER_FLOW, MAX_RETRIES, Constant
from simnet.units import PS_PER_MS, PS_PER_S

AsNumber = Annotated[int, whole_number(1, 4294967295)]
RpFilter = Literal["none", "strict", "loose"]


class NodesModel(FileModel):
    """`nodes:` in short: so many alike."""

    count: Annotated[int, whole_number(1, 10000)]
    cpus: Annotated[int, whole_number(1, 1024)] = 4
    address: Text = "192.168.64.57/24"  # of the first node, with the subnet's length; the others count up
    name: Text = "node"  # node-1, node-2, ...
    zones: list[Text] = []  # given to the nodes in turn
    as_numbers: list[AsNumber] = []  # likewise
    rp_filter: RpFilter = "none"


class NodeModel(FileModel):
    """One entry of a list of nodes."""

    name: Text
    address: Address | None = None
    addresses: list[Address] = []
    labels: dict[str, str] = {}
    zone: Text | None = None
    cpus: Annotated[int, whole_number(1, 1024)] = 4
    pod_cidrs: Annotated[list[Cidr], Field(alias="podCIDRs")] = []
    as_number: AsNumber | None = None
    route_reflector_cluster_id: Annotated[Address | None, Field(alias="routeReflectorClusterID")] = None
    switch: Text | None = None
    rp_filter: RpFilter = "none"
    iptables: Annotated[list[Text], OneOrMore] = []


EncapsulationMode = Literal["Always", "CrossSubnet", "Never"]


def _or_none(value: object) -> object:
    return None if value == "none" else value


class NodeBgpModel(FileModel):
    """`calico.bgp:`, the nodes' speakers; BIRD's defaults and Calico's."""

    hold_time: PositiveDuration = 240 * PS_PER_S
    keepalive_time: PositiveDuration | None = None
    connect_delay_time: PositiveDuration = 2 * PS_PER_S
    connect_retry_time: PositiveDuration = 5 * PS_PER_S
    graceful_restart: Annotated[PositiveDuration | None, BeforeValidator(_or_none)] = 120 * PS_PER_S
    graceful_restart_helper: bool = True
    bfd: Annotated[PositiveDuration | None, BeforeValidator(_or_none)] = None
    bfd_multiplier: Annotated[int, whole_number(1, 255)] = 3
    link_down_detection: PositiveDuration = 50 * PS_PER_MS


class SwitchBgpModel(NodeBgpModel):
    """`fabric.bgp:`, the switches' speakers."""

    hold_time: PositiveDuration = 180 * PS_PER_S
    graceful_restart: Annotated[PositiveDuration | None, BeforeValidator(_or_none)] = None
    graceful_restart_helper: bool = False


class CalicoModel(FileModel):
    """`calico:`, Calico's own names where it has them."""

    ip_pool: Cidr | None = None
    ip_pools: list[Cidr] = []
    block_size: Annotated[int, whole_number(20, 32)] = 26
    as_number: AsNumber = 64512
    wiring: Literal["S1", "S2", "S3", "S4", "S5", "mesh", "peers"] = "S2"
    route_reflectors: Annotated[int, whole_number(0, 100)] | list[Text] = 0
    route_reflector_cluster_id: Annotated[Address, Field(alias="routeReflectorClusterID")] = "244.0.0.1"
    ipip_mode: EncapsulationMode = "Never"
    vxlan_mode: EncapsulationMode = "Never"
    nat_outgoing: bool = True
    strict_affinity: bool = False
    max_blocks_per_host: Annotated[int, whole_number(1, 100000)] = 20
    service_cluster_ips: Annotated[list[Cidr], Field(alias="serviceClusterIPs")] = []
    service_external_ips: Annotated[list[Cidr], Field(alias="serviceExternalIPs")] = []
    service_load_balancer_ips: Annotated[list[Cidr], Field(alias="serviceLoadBalancerIPs")] = []
    service_load_balancer_aggregation: Literal["Enabled", "Disabled"] = "Enabled"
    num_allowed_local_as_numbers: Annotated[int, Field(alias="numAllowedLocalASNumbers"), whole_number(0, 10)] = 0
    version: Text = "3.32"
    bgp: NodeBgpModel = NodeBgpModel()


class LinkModel(FileModel):
    """One kind of link."""

    rate: BitRate = 10_000_000_000
    delay: PositiveDuration = 5_000_000
    queue: QueueLimit | None = None
    header: Size | None = None


class VethModel(FileModel):
    """The link between a node and a pod."""

    rate: BitRate = 40_000_000_000
    delay: PositiveDuration = 1_000_000
    queue: QueueLimit | None = None


class SpineLinkModel(FileModel):
    """Links between leaves and spines."""

    rate: BitRate = 40_000_000_000
    delay: PositiveDuration = 5_000_000
    queue: QueueLimit | None = None
    header: Size | None = None


class EcmpModel(FileModel):
    """`fabric.ecmp`."""

    hash: Literal["l3", "l4", "symmetric"] = "l4"
    width: Annotated[int, whole_number(1, 1024)] = 16
    choice: Literal["modulo", "hash-threshold", "resilient", "hrw"] = "modulo"
    seeds: Literal["per-box", "shared"] = "per-box"
    buckets: Annotated[int, whole_number(1, 65535)] = 128


class NodeEcmpModel(FileModel):
    """`fabric.nodeEcmp`: as Linux does by default."""

    hash: Literal["l3", "l4", "symmetric"] = "l3"
    choice: Literal["modulo", "hash-threshold", "resilient", "hrw"] = "hash-threshold"
    seeds: Literal["per-box", "shared"] = "per-box"
    buckets: Annotated[int, whole_number(1, 65535)] = 128


class FabricModel(FileModel):
    """`fabric:`: one switch, or leaves and spines."""

    mode: Literal["routed", "bridged"] = "routed"
    switches: Annotated[int, whole_number(1, 1)] = 1
    leaves: Annotated[int, whole_number(0, 1000)] = 0
    spines: Annotated[int, whole_number(0, 1000)] = 0
    link: LinkModel = LinkModel()
    client_link: LinkModel = LinkModel()
    spine_link: SpineLinkModel = SpineLinkModel()
    veth: VethModel = VethModel()
    mtu: Annotated[int, whole_number(576, 65535)] = 1500
    ecmp: EcmpModel = EcmpModel()
    node_ecmp: NodeEcmpModel = NodeEcmpModel()
    bgp: SwitchBgpModel = SwitchBgpModel()
    switch_as_number: AsNumber = 65001
    switch_as_numbers: dict[str, AsNumber] = {}
    leaf_label: Text | None = None
    border_leaf: bool = True
    router_addresses: list[Address] = []


class CpuModel(FileModel):
    """`cpu:`, what a packet costs the nodes that it passes; what is left out is as measured with the back end."""

    backend: Literal["nft", "legacy"] = "nft"
    cores: Annotated[int, whole_number(1, 1024)] | None = None
    base: Duration | None = None
    established: Duration | None = None
    new: Duration | None = None
    per_rule: Duration | None = None
    per_endpoint_rule: Duration | None = None


Placement = Literal["spread", "packed", "random"] | dict[str, dict[str, Annotated[int, whole_number(0, 100000)]]]


class ClusterModel(FileModel):
    """`cluster:`, or a cluster file."""

    objects: Annotated[list[Any], OneOrMore] = []
    nodes: Any = None  # NodesModel, or a list of NodeModel; read apart so that messages name the right one
    kube_proxy: KubeProxyModel = KubeProxyModel()
    kubelet: KubeletModel = KubeletModel()
    kube_controller_manager: KubeControllerManagerModel = KubeControllerManagerModel()
    kube_api_server: Annotated[KubeApiServerModel, Field(alias="kubeAPIServer")] = KubeApiServerModel()
    calico: CalicoModel = CalicoModel()
    fabric: FabricModel = FabricModel()
    cpu: Annotated[CpuModel | None, BeforeValidator(_or_none)] = None
    queues: bool = False
    placement: Any = "spread"
    pods_per_node: Annotated[int, whole_number(1, 100000)] = 110
    replicas: Annotated[int, whole_number(0, 1000000)] | None = None
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    internal_traffic_policy: Literal["Cluster", "Local"] | None = None
    session_affinity: Literal["None", "ClientIP"] | None = None
    service_cidr: Annotated[list[Cidr], OneOrMore, Field(alias="serviceCIDR")] = ["10.96.0.0/12"]
    node_port_range: Text = "30000-32767"
    load_balancer_pool: Cidr | None = None


class ClientsModel(FileModel):
    """`workload.clients:`."""

    count: Annotated[int, whole_number(1, 1000000)] = 1
    from_: Annotated[list[Text], OneOrMore, Field(alias="from")] = ["198.51.100.0/24"]
    skew: Skew = None


class RequestsModel(FileModel):
    """`workload.requests:`, in place of arrivals, packets and gap of `flows:`."""

    connections: Annotated[int, whole_number(1, 10000000)] = 1
    per_connection: Annotated[int, whole_number(1, MAX_PACKETS_PER_FLOW)] | None = None
    max_connection_age: PositiveDuration | None = None
    think_time: Durations | None = None
    rate_per_client: Frequency | None = None
    closed_loop: bool = False
    timeout: PositiveDuration | None = None
    retries: Annotated[int, whole_number(0, MAX_RETRIES)] = 0
    backoff: Durations = Constant(25_000_000_000)


class FlowsModel(FileModel):
    """`workload.flows:`."""

    arrivals: ArrivalField | None = None
    packets: Counts = Constant(1)
    packet_size: Sizes = Constant(1000)
    gap: Durations = Constant(1_000_000_000)
    reply_size: ReplySizes = Constant(1000)
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"


class ServiceModel(FileModel):
    """`workload.service:`, what a pod does with a request."""

    time: Durations = Constant(0)
    workers: Annotated[int, whole_number(1, 100000)] = 1
    queue_limit: Annotated[int, whole_number(0, 1000000000)] | None = None


class WorkloadModel(FileModel):
    """`workload:`."""

    clients: ClientsModel = ClientsModel()
    flows: FlowsModel = FlowsModel()
    requests: RequestsModel | None = None
    service: ServiceModel | None = None


class VariantModel(FileModel):
    """One entry of `variants:`."""

    entry: Literal["ExternalIP", "LoadBalancerIP", "NodePort", "ClusterIP", "Pod"]
    service: Text
    port: Any = None
    node_choice: Literal["random", "round-robin", "per-client", "fixed"] | None = None
    address_choice: Literal["random", "round-robin", "per-client", "fixed"] | None = None
    node: Text | None = None
    address: Address | None = None
    clients: ClientsModel | None = None


class RunModel(FileModel):
    """`run:`."""

    duration: PositiveDuration
    warmup: Duration = 0
    repeat: Annotated[int, whole_number(1, 10000)] = 1
    seed: Annotated[int, whole_number(0, 2**63 - 1)] = 1
    statistic_mode: Literal["random", "nth"] = "random"
    recent_limit: Annotated[int, whole_number(1, 1000000)] | Literal["unlimited"] = 100


class ExpectModel(FileModel):
    """One line of `expect:`."""

    metric: Text
    equals: Any = None
    at_least: float | int | None = None
    at_most: float | int | None = None
    tolerance: Any = "4sigma"
    variant: Text | None = None


class FailureModel(FileModel):
    """`every:` of an event."""

    mtbf: PositiveDuration
    mttr: PositiveDuration


class EventModel(FileModel):
    """One entry of `events:`."""

    do: Text
    at: Duration | None = None
    every: FailureModel | None = None
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    grace_period: Duration | None = None
    replacement: Duration | None = None
    node: Text | list[Text] | None = None
    pod: Text | list[Text] | None = None
    link: list[Text] | Literal["any"] | None = None
    bgp: Text | list[Text] | None = None
    peer: list[Text] | Text | None = None
    filter: Text | None = None
    filters: list[Text] | None = None
    spec: dict[str, Any] | None = None
    block: Cidr | None = None
    name: Text | None = None


class ExperimentModel(FileModel):
    """An experiment file."""

    schema_: Annotated[Literal["simnet/v1"], Field(alias="schema")] = "simnet/v1"
    name: Name  # of the result folder too
    question: str = ""
    kubernetes: Text = "1.33"
    cluster: ClusterModel
    workload: WorkloadModel
    variants: dict[str, VariantModel]
    sweep: dict[str, list[Any]] = {}
    run: RunModel
    record: Literal["packets", "flows", "summary"] = "flows"
    events: list[EventModel] = []
    expect: list[ExpectModel] = []


class ClusterFileModel(ClusterModel):
    """A cluster file: what stands under `cluster:` of an experiment, on its own."""

    schema_: Annotated[Literal["simnet/v1"], Field(alias="schema")] = "simnet/v1"
    kubernetes: Text = "1.33"
