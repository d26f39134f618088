"""Real people's manifests and dumps: each loads with the objects it holds, or is refused for what is wrong with it.

The counts are those that the files' own description gives (`cases/real/SOURCES.md`). Licensed copies of some are in
`tests/data/manifests`; the others are read where the shared cases are at hand.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from simnet.config.manifests import load_objects
from simnet.errors import InputError
from simnet.model.kubernetes import Objects

COPIES = Path(__file__).parent.parent / "data" / "manifests"
REAL = Path(os.environ.get("SIMNET_SHARED", Path(__file__).parents[3] / "shared")) / "cases" / "real"

M, D, K = "manifests/", "dumps/", "manifests/kubeconform-fixtures/"
S, W, P, N, E, ES, NS, C, IG = (
    "services",
    "workloads",
    "pods",
    "nodes",
    "endpoints",
    "endpoint_slices",
    "namespaces",
    "calico",
    "ignored",
)
LOADS: dict[str, dict[str, int]] = {
    M + "argocd-guestbook-tab--guestbook-ui-svc.yaml": {S: 1},
    M + "azure-cni-udp--service.yaml": {S: 1},
    M + "azure-scale-crlf--real-service.yaml": {S: 1},
    M + "calico-yaobank--10-yaobank.yaml": {S: 3, W: 3, IG: 5},
    M + "gcp-boutique--kubernetes-manifests.yaml": {S: 12, W: 12, IG: 11},
    M + "ingress-nginx-cloud--deploy.yaml": {S: 2, W: 1, NS: 1, IG: 15},
    M + "ingress-nginx-static-ip--static-ip-svc.yaml": {S: 1},
    M + "istio-addons-jaeger--jaeger.yaml": {S: 3, W: 1, IG: 1},
    M + "istio-analyzers-portnames--service-port-name.yaml": {S: 3},
    M + "istio-bookinfo-dualstack--bookinfo-dualstack.yaml": {S: 4, W: 6, IG: 4},
    M + "istio-multicluster-inconsistent--inconsistent-service-1.yaml": {S: 6},
    M + "k8s-examples-cockroachdb--cockroachdb-statefulset.yaml": {S: 2, W: 1, IG: 1},
    M + "k8s-examples-meteor-json--meteor-service.json": {S: 1},
    M + "k8s-examples-sysdig-crlf--sysdig-daemonset.yaml": {W: 1},
    M + "k8s-guestbook--guestbook-all-in-one.yaml": {S: 3, W: 3},
    M + "kpng-affinity--kpng-service-monitor.yaml": {S: 1, IG: 1},
    M + "kpng-externalips-dualstack--kpng-example-app.yaml": {S: 1, W: 1},
    M + "kube-prometheus-affinity/alertmanager-service.yaml": {S: 1},
    M + "kube-prometheus-affinity/prometheus-service.yaml": {S: 1},
    M + "kube-score-list-crlf--list.yaml": {S: 1, W: 1},
    K + "comment.yaml": {},
    K + "generate_name.yaml": {IG: 1},
    K + "int_or_string.yaml": {S: 1},
    K + "list_empty_valid.yaml": {},
    K + "list_valid.yaml": {S: 3, W: 3},
    K + "multi_valid_source.yaml": {S: 3, W: 3},
    K + "multi_with_list.yaml": {S: 1, NS: 1},
    K + "null_array.yaml": {W: 1},
    K + "null_string.yaml": {S: 1},
    K + "quantity.yaml": {IG: 1},
    K + "unconventional_keys.yaml": {IG: 1},
    M + "metallb-bgp--deployment_bgp.yaml": {S: 1, W: 1, IG: 4},
    M + "metallb-testsvc/testsvc.yaml": {S: 1, W: 1},
    M + "metallb-testsvc/testsvc_ipv6.yaml": {S: 1, W: 1},
    M + "rook-headless-mon--headless-mon-service.yaml": {S: 1},
    M + "rook-nfs-local--nfs-load-balancer.yaml": {S: 1},
    M + "traefik-crd-services--services.yml": {S: 16, ES: 10},
    M + "traefik-duplicate-addresses--with_duplicated_endpointaddresses.yml": {S: 1, ES: 2, IG: 1},
    M + "traefik-externalips--Published-Service-ClusterIP.yml": {S: 2, ES: 1, IG: 1},
    M + "traefik-lb-status--Published-Service-LoadBalancer.yml": {S: 2, ES: 1, IG: 1},
    M + "troubleshoot-helm--helm-template.yaml": {S: 2, P: 1, W: 1, IG: 11},
    D + "cilium-dualstack-1.26.yaml": {S: 2, E: 2, ES: 3},
    D + "newrelic-1.35/endpoints.yaml": {E: 7},
    D + "newrelic-1.35/namespaces.yaml": {NS: 6},
    D + "newrelic-1.35/nodes.yaml": {N: 1},
    D + "newrelic-1.35/pods.yaml": {P: 25},
    D + "newrelic-1.35/services.yaml": {S: 7},
    D + "np-guard-podlists-json/multiple_topology_resources_1/bank_ns_list.json": {NS: 1},
    D + "np-guard-podlists-json/multiple_topology_resources_1/ns_list.json": {NS: 8},
    D + "np-guard-podlists-json/multiple_topology_resources_1/pods_list.json": {P: 29},
    D + "np-guard-podlists-json/test_with_named_ports/ns_list.json": {NS: 8},
    D + "np-guard-podlists-json/test_with_named_ports/pod_list.json": {P: 29},
    D + "np-guard-services/pods_list.yaml": {P: 11},
    D + "np-guard-services/service_without_selectors.yaml": {S: 1},
    D + "np-guard-services/services_list.yaml": {S: 5},
    D + "popeye-svc-ep-no-po/ep/1.yaml": {E: 4},
    D + "popeye-svc-ep-no-po/node/1.yaml": {N: 5},
    D + "popeye-svc-ep-no-po/pod/1.yaml": {P: 1},
    D + "popeye-svc-ep-no-po/pod/2.yaml": {P: 5},
    D + "popeye-svc-ep-no-po/pod/3.yaml": {P: 2},
    D + "popeye-svc-ep-no-po/pod/4.yaml": {P: 2},
    D + "popeye-svc-ep-no-po/svc/1.yaml": {S: 5},
    D + "troubleshoot-nodes--nodes.json": {N: 6},
}
REFUSED: dict[str, list[tuple[int, str, str]]] = {  # file -> (line, field, found)
    M + "istio-analyzers-several-services--deployment-multi-service.yaml": [
        (67, "Service bookinfo/details-http-v1: spec.ports[0].protocol", "'HTTP'"),
        (130, "Service bookinfo/conflicting-ports-2: spec.ports[0].protocol", "'HTTP'"),
        (181, "Service bookinfo/reviews-http-9080: spec.ports[0].protocol", "'HTTP'"),
        (197, "Service bookinfo/reviews-http-9090: spec.ports[0].protocol", "'HTTP'"),
        (286, "Service bookinfo/productpage-http-v1: spec.ports[0].protocol", "'HTTP'"),
    ],
    M + "troubleshoot-broken--multidoc-spec-with-invalids.yaml": [
        (2, "document 1", "'@'"),
        (15, "document 3", "did not find expected key, while parsing a block mapping"),
    ],
    K + "duplicate_property.yaml": [(16, "document 1", "the key 'containers' twice: lines 13 and 16")],
    D + "np-guard-podlists-json/malformed-pod-example-2/pod_list.json": [
        (31, "Pod default/cog-agents-d54st: spec.containers[0].ports", "an empty mapping")
    ],
    D + "np-guard-podlists-json/malformed-pod-example-3/pods_list.json": [
        (3, "document 1", "a mapping without kind, and the unknown field kindt")
    ],
}


def find(file: str) -> Path:
    """Return the copy in tests/data if there is one, else the shared file, else skip."""
    name = file.removeprefix(M).removeprefix(D).replace("kubeconform-fixtures/", "kubeconform--")
    for path in (COPIES / name, REAL / file):
        if path.exists():
            return path
    pytest.skip("the shared cases are not here")


def counts(objects: Objects) -> dict[str, int]:
    return {kind: len(getattr(objects, kind)) for kind in (S, W, P, N, E, ES, NS, C, IG) if getattr(objects, kind)}


@pytest.mark.parametrize("file", LOADS)
def test_a_real_file_loads_with_the_objects_that_it_holds(file):
    objects = load_objects([find(file)])
    assert counts(objects) == LOADS[file]
    assert pickle.loads(pickle.dumps(objects)) == objects
    for service in objects.services:
        assert service.position.line > 0
        assert hash(service)


@pytest.mark.parametrize("file", REFUSED)
def test_a_broken_file_is_refused_for_its_reason_with_its_line(file):
    with pytest.raises(InputError) as refusal:
        load_objects([find(file)])
    told = [(problem.where.line, problem.field, problem.found) for problem in refusal.value.problems]
    assert told == REFUSED[file]


def test_no_real_file_is_left_out():
    if not REAL.exists():
        pytest.skip("the shared cases are not here")
    files = {str(path.relative_to(REAL)) for kind in (M, D) for path in (REAL / kind).rglob("*") if path.is_file()}
    assert files == {*LOADS, *REFUSED}


def test_every_copied_file_has_a_source_and_is_in_a_table():
    names = {path.name for path in COPIES.iterdir()} - {"SOURCES.md", ".gitattributes"}
    known = {
        file.removeprefix(M).removeprefix(D).replace("kubeconform-fixtures/", "kubeconform--")
        for file in [*LOADS, *REFUSED]
    }
    assert names <= known
    assert all(f"`{name}`" in (COPIES / "SOURCES.md").read_text() for name in names)
    assert len(names) >= 12


def test_one_kind_name_of_several_api_groups_is_told_apart():
    objects = load_objects([find(M + "metallb-bgp--deployment_bgp.yaml")])
    assert [(one.kind, one.api_version) for one in objects.ignored if one.kind == "BGPPeer"] == [
        ("BGPPeer", "metallb.io/v1beta2")
    ] * 2
    assert objects.calico == ()


def test_services_without_types_ports_and_target_ports_get_the_apis_defaults():
    services = {
        service.name: service for service in load_objects([find(M + "calico-yaobank--10-yaobank.yaml")]).services
    }
    summary = services["summary"]
    assert (summary.type, summary.session_affinity, summary.external_traffic_policy) == ("ClusterIP", "None", "Cluster")
    (port,) = summary.ports
    assert (port.name, port.protocol, port.port, port.target_port, port.node_port) == ("http", "TCP", 80, 80, 0)


def test_dual_stack_external_ips_and_headless_are_kept_as_written():
    (service,) = load_objects([find(M + "kpng-externalips-dualstack--kpng-example-app.yaml")]).services
    assert service.is_headless
    assert (service.external_ips, service.ip_family_policy) == (("10.0.0.55", "1000::55"), "RequireDualStack")
    services = load_objects([find(D + "cilium-dualstack-1.26.yaml")]).services
    assert services[0].cluster_ips == ("10.96.164.78", "fd00:10:96::5a5c")
    assert services[0].ip_families == ("IPv4", "IPv6")
    assert [port.node_port for port in services[0].ports] == [32150, 30784]


def test_endpoint_slices_without_ports_names_and_conditions_keep_what_is_absent():
    slices = {one.name: one for one in load_objects([find(M + "traefik-crd-services--services.yml")]).endpoint_slices}
    assert slices["whoami-nil-port-value-abc"].ports[0].port is None
    assert slices["whoami-nil-port-name-abc"].ports[0].name is None
    assert slices["whoami-without-endpointslice-endpoints-abc"].endpoints == ()
    conditions = slices["whoami-abc"].endpoints[0].conditions
    assert (conditions.ready, conditions.serving, conditions.terminating) == (True, None, None)


def test_two_services_on_one_cluster_ip_load_with_a_warning_that_names_both():
    objects = load_objects([find(M + "traefik-crd-services--services.yml")])
    assert [problem.field for problem in objects.warnings] == [
        "Service default/native-disabled-svc: spec.clusterIP",
        "Service default/nodeport-svc: spec.clusterIP",
    ]
    assert "which default/native-svc has" in objects.warnings[0].found


def test_a_folder_whose_files_repeat_an_object_takes_the_later_with_a_warning():
    folder = REAL / "dumps" / "popeye-svc-ep-no-po"
    if not folder.exists():
        pytest.skip("the shared cases are not here")
    objects = load_objects([folder])
    assert counts(objects) == {S: 5, P: 9, N: 5, E: 4}
    assert sum("twice, first at" in problem.found for problem in objects.warnings) == 1


def test_calico_resources_are_kept_raw(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: a, labels: {rr: true}}\n"
        "spec: {bgp: {ipv4Address: 10.0.0.1/24}}\n---\n"
        "apiVersion: crd.projectcalico.org/v1\nkind: IPPoolList\nitems:\n"
        "- metadata: {name: pool}\n  spec: {cidr: 10.0.0.0/8}\n"
        "---\napiVersion: v1\nkind: Node\nmetadata: {name: a}\n"
    )
    objects = load_objects([tmp_path])
    assert counts(objects) == {C: 2, N: 1}
    assert [(one.kind, one.name, one.spec) for one in objects.calico] == [
        ("Node", "a", {"bgp": {"ipv4Address": "10.0.0.1/24"}}),
        ("IPPool", "pool", {"cidr": "10.0.0.0/8"}),
    ]
    assert objects.calico[0].labels == (("rr", "true"),)


ODD = {
    "addresses with leading zeros are decimal": (
        "spec: {clusterIP: 172.30.0.041, externalIPs: ['::ffff:10.0.0.1', 'FD00::0001'], ports: [{port: 80}]}",
        lambda one: (one.cluster_ip, one.external_ips) == ("172.30.0.41", ("10.0.0.1", "fd00::1")),
    ),
    "source ranges are trimmed and masked": (
        "spec: {type: LoadBalancer, loadBalancerSourceRanges: [' 10.1.2.3/8 '], ports: [{port: 80}]}",
        lambda one: one.load_balancer_source_ranges == ("10.0.0.0/8",),
    ),
    "nulls are absent": (
        "spec: {type: null, selector: null, externalIPs: null, ports: [{port: 80, name: null, targetPort: null}]}",
        lambda one: (one.type, one.selector, one.external_ips, one.ports[0].target_port) == ("ClusterIP", None, (), 80),
    ),
    "no spec at all": ("", lambda one: one.ports == ()),
    "an empty selector is none": ("spec: {selector: {}, ports: [{port: 80}]}", lambda one: one.selector is None),
    "a hidden address is left out": (
        "spec: {clusterIP: '***HIDDEN***', clusterIPs: ['***HIDDEN***'], ports: [{port: 80}]}",
        lambda one: (one.cluster_ip, one.cluster_ips) == ("", ()),
    ),
    "affinity has its timeout": (
        "spec: {sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}}",
        lambda one: one.session_affinity_timeout_seconds == 60,
    ),
    "an ingress of a proxy mode, a host name and an address that is none": (
        "status: {loadBalancer: {ingress: [{ip: 1.2.3.4, ipMode: Proxy}, {hostname: a.b}, {ip: 1.2.3.4/32}]}}",
        lambda one: (
            [(entry.ip, entry.hostname, entry.ip_mode) for entry in one.load_balancer_ingress]
            == [("1.2.3.4", "", "Proxy"), ("", "a.b", "VIP")]
        ),
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_services_load(name, tmp_path):
    text, is_right = ODD[name]
    (tmp_path / "a.yaml").write_text(f"apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n{text}\n")
    (service,) = load_objects([tmp_path]).services
    assert (service.namespace, service.name) == ("default", "web")
    assert is_right(service)


def test_bare_arrays_typed_lists_and_generated_names_load(tmp_path):
    (tmp_path / "a.json").write_text(
        '[{"metadata": {"name": "a"}, "status": {"nodeInfo": {}, "capacity": {"cpu": "3920m"}}},\n'
        '{"metadata": {"generateName": "web-"}, "spec": {"containers": []}},\n'
        '{"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"}}]'
    )
    objects = load_objects([tmp_path])
    assert [node.cpus for node in objects.nodes] == [3.92]
    assert [(pod.name, pod.position.line) for pod in objects.pods] == [("web-1", 2), ("web-2", 3)]


def test_pods_are_ready_by_their_condition_else_by_their_phase(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "apiVersion: v1\nkind: PodList\nitems:\n"
        "- {metadata: {name: by-hand}, spec: {containers: [{name: c, ports: [{containerPort: 80, name: http}]}]}}\n"
        "- {metadata: {name: not-yet}, status: {phase: Running, conditions: [{type: Ready, status: 'False'}]}}\n"
        "- {metadata: {name: done}, status: {phase: Succeeded, podIP: 10.0.0.1}}\n"
        "- {metadata: {name: leaving, deletionTimestamp: '2026-01-01T00:00:00Z'},\n"
        "   status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}}\n"
    )
    pods = load_objects([tmp_path]).pods
    assert [(pod.name, pod.ready, pod.terminating, pod.pod_ips) for pod in pods] == [
        ("by-hand", True, False, ()),
        ("not-yet", False, False, ()),
        ("done", False, False, ("10.0.0.1",)),
        ("leaving", True, True, ("10.0.0.2",)),
    ]


def test_a_workload_keeps_the_ports_of_containers_that_stay(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: web}\nspec:\n  template:\n"
        "    metadata: {labels: {app: web}}\n    spec:\n      hostNetwork: true\n      containers:\n"
        "      - {ports: [{name: http, containerPort: 80, hostPort: 8080}], readinessProbe: {tcpSocket: {port: 80}}}\n"
        "      initContainers:\n      - {ports: [{containerPort: 1}]}\n"
        "      - {ports: [{containerPort: 2, protocol: UDP}], restartPolicy: Always}\n"
    )
    (workload,) = load_objects([tmp_path]).workloads
    ports = [(port.name, port.container_port, port.protocol, port.host_port) for port in workload.container_ports]
    assert ports == [("http", 80, "TCP", 8080), ("", 2, "UDP", 0)]
    assert (workload.replicas, workload.host_network, workload.has_readiness_probe) == (None, True, True)
    assert workload.selector == workload.pod_labels == (("app", "web"),)


def test_an_endpoint_keeps_its_node_zone_hints_and_target(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nendpoints:\n"
        "- {addresses: [10.0.0.1], nodeName: a, zone: z, hints: {forZones: [{name: z1}], forNodes: [{name: n1}]},\n"
        "   targetRef: {kind: Pod, name: p, namespace: q}, conditions: {serving: true, terminating: false}}\n"
        "- {addresses: [10.0.0.2], topology: {kubernetes.io/hostname: old}}\n"
    )
    first, second = load_objects([tmp_path]).endpoint_slices[0].endpoints
    assert (first.node_name, first.zone, first.hints_for_zones, first.hints_for_nodes) == ("a", "z", ("z1",), ("n1",))
    assert first.target_ref is not None
    assert (first.target_ref.kind, first.target_ref.name, first.target_ref.namespace) == ("Pod", "p", "q")
    assert (first.conditions.ready, first.conditions.serving, first.conditions.terminating) == (None, True, False)
    assert (second.node_name, second.hints_for_zones, second.target_ref) == ("old", None, None)
