"""The node lifecycle controller, look by look: every renewal, every report and every look in order. Slow, and plain."""


def rounds(phase_ps, period_ps, until_ps):
    """All instants of something that happens once a period, from a while before the run on."""
    return range(phase_ps - 20 * period_ps, until_ps, period_ps)


def transitions(lifecycle, phases, silent, until_ps):
    """When a node becomes unreachable (True) and is ready again (False).

    `phases` of leases, reports and looks; `silent`: spans [from, to) in which nobody hears the node.
    """
    renewals = rounds(phases["lease"], lifecycle.node_lease_duration_ps // 4, until_ps)
    reports = rounds(phases["status"], lifecycle.node_status_update_frequency_ps, until_ps)
    looks = rounds(phases["monitor"], lifecycle.node_monitor_period_ps, until_ps)
    happenings = sorted(
        [(at, 0, "renewal") for at in renewals]
        + [(at, 1, "report") for at in reports]
        + [(at, 2, "look") for at in looks]
    )
    told = []
    is_unreachable = has_news = False
    seen_ps = None  # the look that saw the last news
    for now, _, what in happenings:
        is_heard = not any(begin <= now < end for begin, end in silent)
        if what == "renewal" and is_heard:
            has_news = True
        elif what == "report" and is_heard and is_unreachable:
            is_unreachable, has_news = False, True
            told.append((now, False))
        elif what == "look":
            if has_news:
                seen_ps, has_news = now, False
            if seen_ps is not None and now - seen_ps >= lifecycle.node_monitor_grace_period_ps and not is_unreachable:
                is_unreachable = True
                told.append((now, True))
    return told
