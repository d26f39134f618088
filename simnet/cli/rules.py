"""`simnet rules`: the iptables rules of a node, as kube-proxy writes them, as the kernel shows them, and against a
real dump."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from simnet.cli.options import at_option, loaded, loaded_cluster, loaded_instant, point_option, skip_unknown_option

if TYPE_CHECKING:
    from simnet.cluster import NodeRules

TABLES = ("nat", "filter", "mangle", "raw", "security")


@click.command(name="rules", short_help="A node's iptables rules; compare them with a real dump.")
@click.argument("file")
@click.option("--node", required=True, metavar="NODE", help="Whose rules.")
@click.option("--table", type=click.Choice(TABLES), help="This table only; of a list: nat where none is named.")
@click.option("--chain", metavar="CHAIN", help="This chain only, with --format list.")
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]), help="ipv4 unless told; of --check: the dump's own.")
@click.option("--format", "form", type=click.Choice(["restore", "save", "list"]), default="save", show_default=True)
@click.option("--explain", is_flag=True, help="The chance of each endpoint rule: if asked, and of all packets.")
@at_option
@click.option(
    "--variant", metavar="NAME", help="With the counters of a run of this variant; with --at: of which variant."
)
@point_option
@click.option("--repeat", type=click.IntRange(0), default=0, show_default=True, help="Which repetition of the run.")
@click.option("--exact", is_flag=True, help="Counters in full (iptables -x), with --format list.")
@click.option("--check", "dump", metavar="DUMP", help="Say how this iptables-save (or -L -n -v) text differs.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as -o json, for --explain and --check.")
@skip_unknown_option
@click.pass_context
def command(
    context: click.Context, file: str, node: str, table: str | None, chain: str | None, family: str | None, form: str,
    explain: bool, at: str | None, variant: str | None, point: tuple[str, ...], repeat: int, exact: bool,
    dump: str | None, output: str, as_json: bool, skip_unknown: bool,
) -> None:  # fmt: skip
    """Print NODE's rules as kube-proxy hands them to iptables-restore, as iptables-save prints them, or as a list.

    FILE is an experiment, a cluster file, or a file or folder of Kubernetes manifests. With --check, exit with 1
    where rules are missing, stale, changed or in another order, or where another program's stand among kube-proxy's;
    rules of other programs elsewhere (foreign) are told and are no mistake. With --variant FILE is an experiment, whose
    run is simulated; --format list and save then show what its connections have counted. With --at FILE is an
    experiment with `events:`, and the rules are those of that instant of a run.
    """
    if at is not None and dump is not None:
        raise click.UsageError("--check goes without --at")
    if point and at is None:
        raise click.UsageError("--point goes with --at TIME")
    if variant is not None and at is None:
        if dump is not None or explain or form == "restore":
            raise click.UsageError("--variant goes with --format list or save")
        click.echo(
            _text(
                _counted(file, variant, repeat, node, family, skip_unknown), table, chain, form, exact, counters=True
            ),
            nl=False,
        )
        return
    instant = loaded_instant(file, at, variant if at else None, point, repeat if at else None, None, skip_unknown)
    cluster = instant or loaded_cluster(file, skip_unknown)
    is_json = as_json or output == "json"
    if dump is not None:
        from simnet.cli.rule_check import check_text, checked

        check = checked(cluster, node, dump, family)
        click.echo(json.dumps(check.to_dict(), indent=2) if is_json else check_text(check))
        context.exit(0 if check.agrees else 1)
    rules = cluster.rules(node, family or "ipv4")
    if explain:
        _explain(rules, chain, is_json)
    elif is_json:
        raise click.UsageError("-o json goes with --explain or --check; rules themselves are text")
    else:
        click.echo(_text(rules, table, chain, form, exact), nl=False)


def _counted(file: str, variant: str, repeat: int, node: str, family: str | None, skip_unknown: bool) -> NodeRules:
    from simnet.cluster import rules_after_run

    experiment = loaded(file, None, (), skip_unknown)
    if len(experiment.runs) > len(experiment.variants) * (1 + max(run.repeat for run in experiment.runs)):
        click.echo("the experiment sweeps: counters are of the first point", err=True)
    click.echo("nat counts connections; filter and mangle, the first packet of each and its answer", err=True)
    return rules_after_run(experiment, variant, node=node, family=family or "ipv4", repeat=repeat)


def _text(
    rules: NodeRules, table: str | None, chain: str | None, form: str, exact: bool, counters: bool = False
) -> str:
    if form == "list":
        name = table or "nat"
        held = rules.ruleset.tables.get(name)
        if held is None or (chain is not None and chain not in held.chains):
            wanted = f"table {name}" if held is None else f"chain {chain} of table {name}"
            raise click.UsageError(f"{rules.node} has no {wanted}")
        return rules.to_list(name, chain, exact=exact)
    if chain is not None:
        raise click.UsageError("--chain goes with --format list")
    text = rules.to_restore() if form == "restore" else rules.to_save(counters=counters)
    return text if table is None else _one_table(text, table)


def _one_table(text: str, table: str) -> str:
    """The lines from `*TABLE` to its COMMIT."""
    lines, inside = [], False
    for line in text.splitlines():
        inside = inside or line == f"*{table}"
        if inside:
            lines.append(line)
            if line == "COMMIT":
                break
    return "\n".join(lines) + "\n" if lines else ""


def _explain(rules: NodeRules, chain: str | None, is_json: bool) -> None:
    from simnet.engine.rule_explain import explain

    rows = [each for each in explain(rules.ruleset) if chain in (None, each.chain)]
    if is_json:
        click.echo(json.dumps({"rules": [each.to_dict() for each in rows]}, indent=2))
        return
    told = ""
    for each in rows:
        if each.chain != told:
            told = each.chain
            comment = "  (session affinity: clients seen before come first)" if each.affinity else ""
            click.echo(f"{each.chain}{comment}")
            click.echo("  rule  endpoint                 if asked       of all    of fair")
        click.echo(
            f"  {each.number:>4}  {each.endpoint:<21} {float(each.conditional):>11.8f}"
            f" {float(each.unconditional):>12.8f} {float(each.unconditional / each.fair):>10.6f}"
        )
