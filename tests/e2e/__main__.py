"""End to end: slotd beside a real server, with real clients. `tests/run` calls this; by hand:
`python tests/e2e SUITE --server prosody|ejabberd`, with SLOTD=path/to/slotd where it is not the
debug build."""

import argparse
import asyncio
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path

import issued
from bed import Bed
from daemon import BINARY
from report import Report
from servers import SERVERS

SUITES = ["basics", "sessions", "clients", "commands", "bans", "hostile", "restarts", "send", "send_switch",
          "faults", "powercut", "proxies", "tus", "page", "early", "switch", "crowd", "cuts", "races",
          "reload", "stop", "metrics", "external", "imports", "warm",
          "account", "relay"]


def search(bed, report):
    """No token, link or password is in what any slotd of the suite wrote, from its first line on."""
    report.check(issued.is_found(), "a secret in a log would be found")
    for daemon in bed.daemons:
        written = daemon.written()
        found = [f"{name}: {leak}" for name, text in written.items() for leak in issued.leaks(text)]
        n_lines = sum(text.count("\n") for text in written.values())
        report.equal(found, [], f"of {issued.count()} secrets in {n_lines} lines of {daemon.name} "
                                f"({', '.join(written)}) there are")


def main():
    """Runs one suite; its closing line is `N passed, N failed`."""
    words = argparse.ArgumentParser(prog="tests/e2e", description=__doc__)
    words.add_argument("suite", choices=SUITES)
    words.add_argument("--server", choices=sorted(SERVERS), default="prosody")
    words.add_argument("--only", default="", help="only the parts whose name holds this")
    chosen = words.parse_args()
    os.environ["E2E_ONLY"] = chosen.only
    if not Path(BINARY).exists():
        sys.exit(f"{BINARY} is not there: cargo build first, or set SLOTD")
    # So that the bed is closed: its processes end, its directory goes.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _frame: sys.exit(128 + number))
    report = Report()
    try:
        with Bed(chosen.suite) as bed:
            module = importlib.import_module(chosen.suite)
            asyncio.run(module.suite(bed, SERVERS[chosen.server](bed), report))
            search(bed, report)
            if report.failed:
                bed.show_logs()
    except Exception as trouble:  # anything that ends a suite early is a failed check
        traceback.print_exc(file=sys.stdout)
        report.check(False, f"the suite went through its end ({type(trouble).__name__})", trouble)
    sys.exit(report.close())


if __name__ == "__main__":
    main()
