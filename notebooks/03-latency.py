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
# # What does the extra hop cost?
#
# With queues on, a packet waits for links, for a core at every node, and for the pod. So an entry that sends flows over another worker
# costs time twice: on the way, and in the queues of those who share that way. We look at it by entry and load, then at the rules that a
# connection is held against, then at connections that live long.
#
# Smaller versions of `experiments/latency-under-load.yaml`, `rules-cost.yaml` and `keep-alive.yaml`; the whole ones are answered in
# `experiments/README.md`. Everything is simulated. CPU costs were measured on one machine: compare entries rather than quote microseconds.

# %%
# %matplotlib inline
import numpy as np
import pandas as pd

import simnet
from simnet.analysis.closed_forms import keep_alive_floor
from simnet.analysis.intervals import t_interval
from simnet.analysis.latency import latency_summary
from simnet.analysis.spread import coefficient_of_variation, max_over_mean
from simnet.plotting import (
    figure_style,
    latency_ccdf,
    latency_over_load,
    latency_parts,
    stations_over_time,
)
from simnet.plotting.style import COLOURS, new_axes

RATE = "workload.flows.arrivals.poisson"
LIMIT = "workload.requests.perConnection"

# %% [markdown]
# ## An entry point under load
#
# Four replicas, one on each of four workers, behind links of 100 Mbit/s. A request and its reply are 1,250 B each on the wire: 100 us a link.
# The ExternalIP belongs to node-1; the NodePort is called at a random worker; the pod's own address is the floor. The pods need 200 us
# on average and have four threads, so they are not what fills up.

# %%
spread = simnet.run(
    simnet.load_experiment(
        "../experiments/latency-under-load.yaml",
        settings=[
            f"sweep={{{RATE}: [1000/s, 3000/s, 5000/s]}}",
            "run={duration: 1s, warmup: 200ms, repeat: 3, seed: 1}",
        ],
    )
)
summary = latency_summary(spread.latency, spread.sweep)
total = summary[(summary["of"] == "response") & (summary["part"] == "total")]
total.set_index([RATE, "variant"])[["packets", "mean_us", "mean_us_low", "mean_us_high", "p50_us", "p99_us"]].round(0)

# %%
latency_over_load(spread, RATE, figure="mean").figure

# %% [markdown]
# The ExternalIP's line leaves the others although every entry makes the same detours. The tail leaves first: at 5,000/s

# %%
latency_ccdf(spread, at={RATE: "5000/s"}).figure

# %% [markdown]
# And where the time goes: the NodePort pays for more wires, the ExternalIP for the same wires and for waiting at one of them.

# %%
latency_parts(spread, at={RATE: "5000/s"}).figure

# %% [markdown]
# That one wire is the link of node-1, in both directions. Three in four flows leave node-1 again, so it carries towards node-1 every request
# and three quarters of the replies, and as much away from it: $1.75 \cdot \lambda \cdot 100\,\mathrm{us}$, which is 0.875 at 5,000/s and would be 1
# at 5,714/s. With the NodePort four links share that.

# %%
stations_over_time(spread, "external-ip", at={RATE: "5000/s"}, count=3).figure

# %%
measured = spread.stations[spread.stations["station"] == "tor->node-1"]
busy = measured.groupby([RATE, "variant"], observed=True)["utilisation"].mean().unstack("variant")
share = pd.Series({"external-ip": 1 + 3 / 4, "node-port": 1 / 4 * (1 + 3 / 4) + 3 / 4 * 1 / 4, "pod": 1 / 4})
expected = pd.DataFrame({rate: share * int(rate.removesuffix("/s")) * 100e-6 for rate in busy.index}).T
pd.concat({"seen": busy, "expected": expected}, axis=1).round(3)

# %% [markdown]
# ## What one detour costs
#
# At 1,000/s hardly anything waits. The NodePort's mean response less the pod's, part by part, divided by the share of flows that make the detour
# (3 in 4), is the price of one detour, there and back. Two more wires each way are four transmissions of 100 us and four times 5 us of
# propagation; the other node's core and rules add a few microseconds. At 5,000/s the detour costs the NodePort some waiting more, and
# the ExternalIP a multiple of the detour itself.

# %%
parts = summary[(summary["of"] == "response") & (summary["part"] != "total")]
mean = parts.pivot_table(index="part", columns=[RATE, "variant"], values="mean_us", observed=True, sort=False)
detour = pd.DataFrame(
    {
        (rate, entry): (mean[rate, entry] - mean[rate, "pod"]) / 0.75
        for rate in ("1000/s", "5000/s")
        for entry in ("node-port", "external-ip")
    }
)
table = pd.concat([detour, detour.sum().rename("sum").to_frame().T])
table.rename(index=lambda part: part.removesuffix("_ps") + ", us").round(1)

# %% [markdown]
# ## The same with all pods on the ExternalIP's worker

# %%
packed = simnet.run(
    simnet.load_experiment(
        "../experiments/latency-under-load.yaml",
        settings=[
            f"sweep={{placement: [packed], {RATE}: [5000/s]}}",
            "run={duration: 1s, warmup: 200ms, repeat: 3, seed: 1}",
        ],
    )
)
latency_parts(packed).figure

# %% [markdown]
# Now nothing that enters at node-1 leaves it again: the ExternalIP is as good as the pod's own address, and the NodePort alone pays for detours.

# %% [markdown]
# ## What rules cost
#
# iptables holds a new connection against KUBE-SERVICES one rule after the other. Services in front of ours cost 18 ns a rule with
# iptables-nft and 5.5 ns with iptables-legacy. `a-web` stands first in the list, `z-web` last, and NodePorts come after all.

# %%
rules = simnet.run(
    simnet.load_experiment(
        "../experiments/rules-cost.yaml",
        settings=[
            "sweep={objects: [manifests/rules-10.yaml, manifests/rules-100.yaml, manifests/rules-1000.yaml], cpu.backend: [nft, legacy]}",
            "run={duration: 200ms, repeat: 3, seed: 1}",
        ],
    )
)
of_scan = latency_summary(rules.latency, rules.sweep).query("of == 'response' and part == 'rule_scan_ps'")
scan = of_scan.assign(ports=of_scan["objects"].astype(str).str.extract(r"(\d+)", expand=False).astype(int))
scanned = rules.summary.pivot_table(index="objects", columns="variant", values="rules_scanned_mean", observed=True)
time = scan.pivot_table(index="ports", columns=["cpu.backend", "variant"], values="mean_us", observed=True)
scanned.index = time.index
pd.concat({"rules": scanned, "nft, us": time["nft"], "legacy, us": time["legacy"]}, axis=1).round(1)

# %%
with figure_style():
    ax = new_axes()
    for entry, colour, marker in zip(rules.variants, COLOURS[:3], ("o", "s", "^"), strict=True):
        for backend, line in (("nft", "-"), ("legacy", "--")):
            each = scan[(scan["variant"] == entry) & (scan["cpu.backend"] == backend)]
            ax.plot(
                each["ports"],
                each["mean_us"],
                marker,
                linestyle=line,
                color=colour,
                fillstyle="none",
                label=f"{entry}, {backend}",
            )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("Service ports in the cluster")
    ax.set_ylabel("rule scan of a connection (us)")
    ax.figure.legend(loc="outside lower center", ncols=3)
ax.figure

# %% [markdown]
# The cost is linear in the place in the list. The last ExternalIP and the NodePort differ by 3 rules, 0.05 us: their marks lie on each other.
# Half of the flows make a detour, and the node behind scans the whole list again, in vain: so the first Service does not get off for
# nothing. Against a detour of 400 us none of this shows. Here, with links of 10 Gbit/s, a detour takes four times 5 us of propagation and about
# 10 us of transmission and CPU: at a thousand ports the rules cost as much as the hop, at 10,000 ten times as much.

# %% [markdown]
# ## Connections that live long
#
# The rules choose a pod per *connection*. A hundred clients, each with one connection open, make 50,000 requests a second
# and give a connection up after 1, 10, 100 or 1,000 of them. With N
# connections over E pods the coefficient of variation of the load is about $\sqrt{(E-1)/N}$, however many requests they carry.

# %%
keep = simnet.run(
    simnet.load_experiment(
        "../experiments/keep-alive.yaml",
        settings=[
            f"sweep={{{LIMIT}: [1, 10, 100, 1000]}}",
            "workload.requests.ratePerClient=500/s",
            "variants={node-port: {entry: NodePort, service: web-node-port, nodeChoice: random}}",
        ],
    )
)
pods = keep.load[keep.load["where"] == "pod"]
rows = []
for _, of_point in pods.groupby(LIMIT, observed=True):
    runs = [run for _, run in of_point.groupby("run", observed=True)]
    connections = np.mean([run["connections"].sum() for run in runs])
    cov = t_interval([coefficient_of_variation(run["packets"]) for run in runs])
    rows.append(
        {
            "requests a connection": round(of_point["packets"].sum() / of_point["connections"].sum()),
            "connections": connections,
            "CoV": cov.mean,
            "low": cov.low,
            "high": cov.high,
            "sqrt((E-1)/N)": keep_alive_floor(10, connections),
            "hottest pod / mean": np.mean([max_over_mean(run["packets"]) for run in runs]),
        }
    )
unevenness = pd.DataFrame(rows).sort_values("requests a connection").set_index("requests a connection")
unevenness.round(3)

# %%
with figure_style():
    ax = new_axes()
    errors = [unevenness["CoV"] - unevenness["low"], unevenness["high"] - unevenness["CoV"]]
    ax.errorbar(
        unevenness["connections"],
        unevenness["CoV"],
        errors,
        fmt="o",
        color=COLOURS[0],
        label="seen, 95 % interval over 5 repeats",
    )
    N = np.geomspace(unevenness["connections"].min(), unevenness["connections"].max())
    ax.plot(N, np.sqrt(9 / N), "k-", linewidth=0.9, label="sqrt((E-1)/N), E = 10")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("connections, the number of requests being the same")
    ax.set_ylabel("spread of requests over pods (CoV)")
    ax.figure.legend(loc="outside lower center", ncols=2)
ax.figure

# %%
with figure_style():
    ax = new_axes()
    one_repeat = pods[pods["repeat"] == 0]
    for place, (_, run) in enumerate(one_repeat.groupby("run", observed=True, sort=False)):
        share = 100 * run["packets"] / run["packets"].sum()
        each = round(run["packets"].sum() / run["connections"].sum())
        ax.bar(
            np.arange(len(run)) + 0.2 * (place - 1.5), share, 0.19, color=COLOURS[place], label=f"{each:,} a connection"
        )
    ax.axhline(10, color="black", linewidth=0.9, label="fair share")
    ax.set_xticks(range(10), [str(pod).removeprefix("default/") for pod in run["name"]])
    ax.grid(visible=False, axis="x")
    ax.set_ylabel("share of requests (%), first repeat")
    ax.figure.legend(loc="outside lower center", ncols=3)
ax.figure

# %% [markdown]
# ## Answer
#
# A detour costs what its wires cost, here 400 us and a little: the same at every entry. What differs is who has to queue. An ExternalIP
# concentrates requests, and the replies of detours, on one link, which is full when NodePort's four are at 36 %; on the worker that holds the pods
# it is the fastest entry there is. Rules matter at thousands of ports, for first packets. And neither entry mends what few long
# connections do to the load of pods.
#
# Not modelled here: congestion control and retransmission (load is open loop, a dropped packet is gone), pools and ages of connections,
# caches and interrupts; `docs/models/latency.md` has the list.
