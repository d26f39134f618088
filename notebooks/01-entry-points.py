# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is an ExternalIP more efficient than a NodePort?
#
# It is said that ExternalIPs are more efficient, because traffic goes to chosen workers rather than to all of them. We
# take a Deployment, open every kind of door to it, send the same clients through each, and look.
#
# Everything here is simulated: kube-proxy's iptables rules, Calico's routes and a switch are computed and executed, but no cluster
# is asked. Figures are means over repeats with 95 % intervals.

# %%
# %matplotlib inline
import simnet
from simnet.analysis import closed_forms
from simnet.plotting import efficiency_figure, hop_counts, load_spread, topology

# %% [markdown]
# ## Two replicas on two workers
#
# `experiments/nginx-demo.yaml`: the switch routes, worker node-1's own address is the ExternalIP, node ports are called at a
# random worker, and the ClusterIP is called by pods.

# %%
demo = simnet.run(simnet.load_experiment("../experiments/nginx-demo.yaml"))
demo.summary.set_index("variant")[
    [
        "repeats",
        "l3_hops_mean",
        "l3_hops_mean_low",
        "l3_hops_mean_high",
        "cross_node_share",
        "snat_share",
        "rules_scanned_mean",
    ]
].round(3)

# %% [markdown]
# Half of the flows at either outside entry make a detour over the other worker: 4 router hops (switch, worker, switch, worker)
# instead of 2. The rules flip a fair coin per *connection*, and it does not know where the packet is.

# %%
hop_counts(demo).figure

# %% [markdown]
# So each pod gets half, at every entry, but the ExternalIP's worker carries everything.

# %%
load_spread(demo, by="entry_node").figure

# %%
topology(demo, "external-ip").figure

# %% [markdown]
# ## When does it matter which door?
#
# A part of `experiments/entry-points.yaml`: 6 replicas spread over 4, 8 or 16 workers, under both external traffic policies. One ExternalIP
# belongs to node-1, the other to node-4; a LoadBalancer IP is advertised over BGP; the pod's own address is the floor.

# %%
doors = simnet.run(
    simnet.load_experiment(
        "../experiments/entry-points.yaml",
        settings=[
            "sweep={nodes.count: [4, 8, 16], externalTrafficPolicy: [Cluster, Local]}",
            "cluster.replicas=6",
            "run.duration=3s",
            "run.repeat=5",
        ],
    )
)
measures = ("l3_hops_mean", "cross_node_share", "entry_node_cov", "pod_cov", "snat_share", "rules_scanned_mean")
efficiency_figure(doors, "nodes.count", measures, at={"externalTrafficPolicy": "Cluster"})

# %% [markdown]
# Under policy Cluster a flow crosses between workers with probability $1 - \sum_i a_i e_i / E$, with $a_i$ the share that enters at worker
# $i$ and $e_i$ of the $E$ pods on it. For a NodePort that is $1 - 1/n$, whatever the placement; for an ExternalIP $1 - e_A/E$.
# On 8 workers:

# %%
at_eight = doors.summary[(doors.summary["nodes.count"] == 8) & (doors.summary["externalTrafficPolicy"] == "Cluster")]
pods_on_worker = [1, 1, 1, 1, 1, 1, 0, 0]
expected = {
    "external-ip": closed_forms.cluster_cross_node_share([1, 0, 0, 0, 0, 0, 0, 0], pods_on_worker),
    "node-port": closed_forms.cluster_cross_node_share([1 / 8] * 8, pods_on_worker),
    "load-balancer": closed_forms.cluster_cross_node_share([1 / 8] * 8, pods_on_worker),
}
crossing = at_eight.set_index("variant")[["cross_node_share", "cross_node_share_low", "cross_node_share_high"]]
crossing.loc[list(expected)].assign(closed_form=list(expected.values())).round(4)

# %% [markdown]
# ## The policy matters more than the door
#
# Under Local nobody crosses and nobody is translated twice. But a NodePort loses what enters at a worker without a pod, and an
# ExternalIP leaves the pods of all other workers idle. Only the LoadBalancer IP is told, by BGP, which workers have pods.

# %%
efficiency_figure(
    doors,
    "nodes.count",
    ("l3_hops_mean", "answered_share", "pod_cov"),
    at={"externalTrafficPolicy": "Local"},
)

# %%
columns = ["repeats", "l3_hops_mean", "snat_share", "answered_share", "pod_max_over_mean", "entry_node_max_over_mean"]
under_local = doors.summary[doors.summary["externalTrafficPolicy"] == "Local"]
under_local.set_index(["nodes.count", "variant"])[columns].round(2)

# %% [markdown]
# ## What the paired comparison says
#
# Repeat r of every variant meets the same clients, arrivals and sizes, so differences are taken within repeats, and p-values are
# adjusted for the number of comparisons. "No difference at this n" is a result.

# %%
pair = doors.differences[
    (doors.differences["a"] == "external-ip")
    & (doors.differences["b"] == "node-port")
    & (doors.differences["nodes.count"] == 8)
]
pair.set_index(["externalTrafficPolicy", "measure"])[
    ["mean_a", "mean_b", "difference", "low", "high", "verdict"]
].round(3)

# %% [markdown]
# ## Answer
#
# An ExternalIP saves hops only as far as its worker holds the pods, never SNAT, and it always concentrates the load on that worker. For fewer
# hops change the policy: Local on a LoadBalancer IP that BGP advertises, with the pods spread evenly. The whole sweep, with packed pods and
# more replicas, is answered in `experiments/README.md`.
#
# Not modelled here: queues and loss, TCP's congestion control, the CPU time of rules, events.
