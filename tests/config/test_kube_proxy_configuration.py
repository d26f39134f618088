"""A whole KubeProxyConfiguration, as `kubectl -n kube-system get configmap kube-proxy` holds it, can be pasted."""

from __future__ import annotations

from pathlib import Path

import pytest

from simnet.config.cluster_file import load_cluster_spec
from simnet.errors import InputError
from simnet.units import PS_PER_S

WHOLE = """
nodes: {count: 2}
kubeProxy:
  apiVersion: kubeproxy.config.k8s.io/v1alpha1
  bindAddress: 0.0.0.0
  bindAddressHardFail: false
  clientConnection: {acceptContentTypes: "", burst: 0, kubeconfig: /var/lib/kube-proxy/kubeconfig.conf, qps: 0}
  clusterCIDR: 10.244.0.0/16
  configSyncPeriod: 0s
  conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: 1h0m0s, udpTimeout: 0s}
  detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
  detectLocalMode: ""
  enableProfiling: false
  healthzBindAddress: ""
  hostnameOverride: ""
  iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 1m30s}
  ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpTimeout: 0s}
  kind: KubeProxyConfiguration
  logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}}, verbosity: 0}
  metricsBindAddress: ""
  mode: ""
  nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
  nodePortAddresses: null
  oomScoreAdj: null
  portRange: ""
  showHiddenMetricsForVersion: ""
  winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
"""


def test_a_whole_configuration_of_a_kubeadm_cluster_is_read(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(WHOLE)
    configuration = load_cluster_spec(file).kube_proxy
    assert configuration.cluster_cidr == "10.244.0.0/16"
    assert configuration.iptables.localhost_node_ports is True
    assert configuration.iptables.masquerade_bit == 14
    assert configuration.iptables.sync_period_ps == 90 * PS_PER_S


def test_liberal_conntrack_leaves_out_the_rule_that_drops_invalid_packets(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(WHOLE.replace("tcpBeLiberal: false", "tcpBeLiberal: true"))
    assert load_cluster_spec(file).kube_proxy.host.conntrack_tcp_be_liberal is True


def test_another_mode_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(WHOLE.replace('mode: ""', "mode: ipvs"))
    with pytest.raises(InputError) as told:
        load_cluster_spec(file)
    (problem,) = told.value.problems
    assert (problem.field, problem.found) == ("kubeProxy.mode", "'ipvs'")
