"""The benchmark: slotd and its peers on the same work, in paired rounds. `contrib/bench/run`
installs, builds, and calls this."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time

from tools import Failed, say
from bed import Bed, Trouble
from table import medians, table
from works import TARGETS, WORKS
from xmpp import Refused

# What makes one figure missing and lets the others be measured.
TROUBLE = (Failed, Trouble, Refused, OSError, TimeoutError, subprocess.SubprocessError)
HEADER = """Paired rounds on one machine, plain HTTP on loopback (tls-*: TLS): each round runs every target once.
Figures are medians over {n} round(s); a ratio is the median of the ratios within the rounds, with
the least and the most. The load generator shares the {cores} cores; `loader's` is its own CPU time by the
same unit. All log warnings alone (nginx: access_log off), but in `slots` and `slots-open` as they are
installed. No peer syncs uploads: `slotd` does (durability = "full"), `slotd-none` does not. {system}"""


def arguments():
    """The words of the command line."""
    words = argparse.ArgumentParser(prog="contrib/bench/run", description=__doc__)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--only", default="", metavar="WORK,...", help="these works alone")
    words.add_argument("--targets", default="", metavar="NAME,...", help="these targets alone")
    words.add_argument("--base", help="what ratios are to (nginx; for slots: own)")
    words.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    words.add_argument("--markdown", action="store_true", help="the tables as Markdown")
    words.add_argument("--json", metavar="FILE", help="every figure of every round")
    words.add_argument("--list", action="store_true", help="the works and their targets")
    words.add_argument("--self-check", action="store_true",
                       help="the load generator against a server that does next to nothing")
    words.add_argument("--dir", default=os.environ.get("BENCH_DIR"),
                       help="where to write; a real disk")
    return words.parse_args()


def chosen(text, all_names, what):
    """The names in a list of names."""
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in all_names]
    if unknown:
        sys.exit(f"contrib/bench/run: no {what} is called {', '.join(unknown)}; see --list")
    return names


def plan(args):
    """The works to do, each with its targets: {name: [target]}."""
    if args.self_check:
        return {name: ["sink"] for name in ("get-256m", "get-100k", "put-256m", "put-100k")}
    targets = chosen(args.targets, TARGETS, "target")
    found = {}
    for name in chosen(args.only, WORKS, "work") or WORKS:
        wanted = [one for one in WORKS[name][3] if not targets or one in targets]
        if wanted:
            found[name] = wanted
    return found


def run_work(bed, args, name, targets):
    """All rounds of one work: a list of {target: figures}, and the work."""
    kind, usual, quick, _, options = WORKS[name]
    work = kind(bed, quick if args.quick else usual, targets, **options)
    rounds = []
    for number in range(args.rounds):
        # Nobody is always the first, nor always behind the same one.
        turn = number % len(targets)
        figures = {}
        for target in targets[turn:] + targets[:turn]:
            began = time.monotonic()
            try:
                figures[target] = work.measure(target)
                told = f"{figures[target]['rate']:.0f}"
            except TROUBLE as trouble:
                told = f"FAILED: {trouble}"
            say(f"  {name} {number + 1}/{args.rounds} {target}: {told}"
                f" ({time.monotonic() - began:.1f} s)")
        rounds.append({target: figures[target] for target in targets if target in figures})
    work.close()
    return rounds, work


def main():
    """Runs what was chosen; fails if a figure is missing."""
    args = arguments()
    if args.list:
        for name, (_, _, _, targets, _) in WORKS.items():
            print(f"{name:18} {' '.join(targets)}")
        return 0
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _frame: sys.exit(128 + number))
    tempfile.tempdir = args.dir
    wanted, results, n_missing = plan(args), {}, 0
    print(HEADER.format(n=args.rounds, cores=os.cpu_count(), system=platform.platform()))
    with Bed("bench") as bed:
        for name, targets in wanted.items():
            rounds, work = run_work(bed, args, name, targets)
            base = args.base or work.base
            results[name] = {"unit": work.unit, "rounds": rounds}
            n_missing += sum(len(targets) - len(one) for one in rounds)
            rows = medians(rounds, base)
            print(f"\n{'### ' if args.markdown else ''}{name}\n")
            print("\n".join(table(rows, work.unit, base, args.markdown)), flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"rounds": args.rounds, "works": results}, file, indent=1)
    if n_missing:
        say(f"contrib/bench/run: {n_missing} figures are missing, see above")
    return 1 if n_missing else 0


if __name__ == "__main__":
    sys.exit(main())
