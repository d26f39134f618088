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
# # What do hold timer, BFD and graceful restart save?
#
# Four workers, a pod on each, every worker peers with the switch. At 10 s the link of node-2 falls silent for 15 s: packets vanish and no carrier goes.
# At 40 s the BGP daemon of node-3 is killed, and is back after 5 s. The same calls go to a LoadBalancer IP with
# `externalTrafficPolicy: Local`, to one with `Cluster`, to a node port, and to the pods themselves.
#
# `experiments/node-failure.yaml` with 4 of its 10 repeats. Lines are means over repeats, bands 95 % intervals. Grey is when something is broken, lighter grey
# lasts until all tables are as before in the slowest repeat; between the dotted lines tables had followed.

# %%
# %matplotlib inline
import simnet
from simnet.plotting import convergence_figure, load_over_time, losses_over_time, packets_lost_over_time

failures = simnet.run(simnet.load_experiment("../experiments/node-failure.yaml", settings=["run.repeat=4"]))
plain = {"calico.bgp.bfd": "none", "calico.bgp.gracefulRestart": "none"}
both = {"calico.bgp.bfd": "300ms", "calico.bgp.gracefulRestart": "120s"}

# %% [markdown]
# ## Hold timer alone
#
# The hold time is 9 s. BIRD draws it from three quarters to all of that, counted from the last KEEPALIVE, so the break is noticed 3.75 to 9 s later. Which
# route the switch loses when, and when it has it again, in the first repeat:

# %%
convergence_figure(failures, "silent link", at=plain)

# %%
losses_over_time(failures, at=plain).figure

# %% [markdown]
# Until then a quarter is lost, or with a second leg $1 - (3/4)^2 = 7/16$. Afterwards the VIP with policy Local loses nothing: the switch sends to three
# nodes, each with a pod. With policy Cluster they still send every fourth call to the pod behind the silent link, for it is an endpoint as before.
#
# The killed daemon leaves its node's kernel routes as they are, yet the switch withdraws at once: healthy pods become unreachable.

# %%
packets_lost_over_time(failures, "load-balancer-cluster", at=plain).figure

# %% [markdown]
# First the link itself loses packets; once the switch has noticed, the pod behind it has no route, and what kube-proxy sends there is lost for that reason.

# %%
load_over_time(failures, "load-balancer-local", at=plain).figure

# %% [markdown]
# ## BFD and graceful restart

# %%
losses_over_time(failures, at=both).figure

# %% [markdown]
# BFD notices within 0.9 s, which is all that the VIP with policy Local needs. Graceful restart removes the second hill. What remains is out of BGP's reach:
# a pod or node that is called by its own address, and endpoints that outlive their pods.

# %%
lost = failures.summary.assign(lost_percent=100 * (1 - failures.summary["answered_share"]))
lost.pivot_table(index=list(plain), columns="variant", values="lost_percent", observed=True, sort=False).round(2)

# %% [markdown]
# The closed form for the VIP with policy Local: a quarter of the minute's calls, times the mean time to notice (hold timer 7.875 - 1.32 s, BFD 0.9 - 0.13 s)
# over 60 s.

# %%
{"hold timer": round(100 / 4 * 6.55 / 60, 2), "BFD": round(100 / 4 * 0.77 / 60, 2)}

# %% [markdown]
# ## Event by event
#
# The frame `events` has a row for each event of each run: when tables had followed, when they were as before, what was lost in between.
# `event_summary` is its mean over repeats; the VIP with policy Local and the pod, without graceful restart:

# %%
by_event = failures.event_summary.query(
    "`calico.bgp.gracefulRestart` == 'none' and variant in ['load-balancer-local', 'pod']"
)
by_event[["name", "calico.bgp.bfd", "variant", "time_to_withdraw_s", "time_to_repair_s", "packets_lost"]].round(3)

# %% [markdown]
# The killed daemon is noticed after a millisecond and loses what its pods are called for until it is back. No loss lies outside of the two windows:

# %%
int(failures.event_effects.query("event == -1")["count"].sum())

# %% [markdown]
# ## Answer
#
# Graceful restart on both ends. BFD where the VIP has somewhere else to go, which means policy Local. Not modelled here: endpoints that leave when
# a node is not ready, retransmission by clients.
