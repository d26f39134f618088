"""`simnet trace`: which way a connection's first packet takes, through which rules, and how its answer comes back."""

from __future__ import annotations

import json

import click

from simnet.cli.options import instant_options, loaded_cluster, loaded_instant, skip_unknown_option


@click.command(name="trace", short_help="The way of one packet, rule by rule, and back.")
@click.argument("file")
@click.option("--from", "source", required=True, metavar="SRC", help="Address, pod:NS/NAME or node:NAME [:PORT].")
@click.option("--to", "destination", required=True, metavar="DST:PORT", help="As SRC, or service:NS/NAME.")
@click.option("--proto", default="tcp", metavar="tcp|udp|sctp", show_default=True, help="Protocol.")
@click.option("--node", metavar="NODE", help="Ask this node's rules alone, as if the packet had just arrived there.")
@click.option("--all", "every", is_flag=True, help="Every branch; the probabilities sum to 1.")
@click.option("--seed", default=1, show_default=True, help="Of the one branch that is drawn without --all.")
@instant_options
@skip_unknown_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
def command(
    file: str, source: str, destination: str, proto: str, node: str | None, every: bool, seed: int, at: str | None,
    variant: str | None, point: tuple[str, ...], repeat: int | None, skip_unknown: bool, output: str, as_json: bool,
) -> None:  # fmt: skip
    """Follow the first packet from SRC to DST and the answer, through the cluster of FILE.

    FILE is an experiment, a cluster file, or a file or folder of Kubernetes manifests. An SRC that the cluster does
    not know is a client outside. With --at, FILE is an experiment: the packet meets the tables of that instant, and is
    lost where a wire or a device is down then; nothing changes while it is under way.
    """
    if at is not None and node is not None:
        raise click.UsageError("--node asks rules alone, of no instant; leave --at or --node away")
    cluster = loaded_instant(file, at, variant, point, repeat, None, skip_unknown) or loaded_cluster(file, skip_unknown)
    trace = cluster.trace(source, destination, protocol=proto, node=node, all=every, seed=seed)
    click.echo(json.dumps(trace.to_dict(), indent=2) if as_json or output == "json" else str(trace))
