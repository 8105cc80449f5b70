"""The benchmark: slotd and its peers on the same work, in paired rounds. `contrib/bench/run`
installs, builds, and calls this."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tools import Failed, allow_open_files, say
from bed import Bed, Trouble
import must
import works
from table import laid_out, medians, table
from work import TARGETS
from works import WORKS
from xmpp import Refused

# What makes one figure missing and lets the others be measured.
TROUBLE = (Failed, Trouble, Refused, OSError, TimeoutError, subprocess.SubprocessError)
# What all works together have on the disk at their most.
ROOM_BYTES = 10 << 30
HEADER = """Paired rounds on one machine, plain HTTP on loopback (tls-*: TLS): each round runs every
target once. Figures are medians over {n} round(s); a ratio is the median of the ratios within the
rounds, with the least and the most. The load generator shares the {cores} cores; `loader's` is its
own CPU time by the same unit. All log warnings alone (nginx: access_log off), but in `slots` and
`slots-open` as they are installed. No peer syncs uploads: `slotd` does (durability = "full"),
`slotd-none` does not. {system}"""


def arguments():
    """The words of the command line."""
    words = argparse.ArgumentParser(prog="contrib/bench/run", description=__doc__)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--only", default="", metavar="WORK,...", help="these works alone")
    words.add_argument("--targets", default="", metavar="NAME,...", help="these targets alone")
    words.add_argument("--must", action="store_true",
                       help="what slotd is to show, and whether it does")
    words.add_argument("--base", help="what ratios are to (nginx; for slots: own)")
    words.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    words.add_argument("--markdown", action="store_true", help="the tables as Markdown")
    words.add_argument("--json", metavar="FILE", help="every figure of every round")
    words.add_argument("--list", action="store_true", help="the works and their targets")
    words.add_argument("--needs", action="store_true", help="the peers that must be installed")
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
    targets = chosen(args.targets, [*TARGETS, *works.HELD], "target")
    all_works = must.plan() if args.must else {name: WORKS[name].targets for name in WORKS}
    found = {}
    for name in chosen(args.only, all_works, "work") or (all_works if args.must else works.USUAL):
        wanted = [one for one in all_works[name] if not targets or one in targets]
        if wanted:
            found[name] = wanted
    return found


class Clock:
    """How much of all parts is done, and how long the rest may take."""

    def __init__(self, wanted, n_rounds):
        self.began, self.done_s = time.monotonic(), 0
        self.n_rounds, self.all_s = n_rounds, works.seconds(wanted, n_rounds)
        self.n_parts = n_rounds * sum(len(targets) for targets in wanted.values())
        self.n_done = 0

    def told(self):
        """The rest, by what the parts so far took and were expected to."""
        gone = time.monotonic() - self.began
        rest = self.all_s - self.done_s
        if self.n_done >= 5 and self.done_s:
            rest *= gone / self.done_s
        return (f"{self.n_done} of {self.n_parts}, {_minutes(gone)} gone,"
                f" about {_minutes(rest)} left")

    def work_done(self, name, targets):
        """A work has ended: what it was expected to take counts as done."""
        self.n_done += self.n_rounds * len(targets)
        self.done_s += works.seconds({name: targets}, self.n_rounds)


def _minutes(seconds):
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


def run_work(bed, args, name, targets):
    """All rounds of one work: a list of {target: figures}, and the work."""
    entry = WORKS[name]
    work = entry.kind(bed, entry.quick if args.quick else entry.usual, **entry.options)
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
            took = time.monotonic() - began
            if target in figures:
                figures[target]["took_s"] = took
            say(f"  {name} {number + 1}/{args.rounds} {target}: {told} ({took:.1f} s)")
        rounds.append({target: figures[target] for target in targets if target in figures})
    work.close()
    return rounds, work


def show_work(args, name, rounds, work, base):
    """Prints a work's table, and which targets did less of it."""
    print(f"\n{'### ' if args.markdown else ''}{name}\n")
    if any(rounds):
        rows = medians(rounds, base)
        print("\n".join(table(rows, work.unit, base, args.markdown)))
    smaller = [f"{target}: {size.told()}" for target, size in work.size.slow.items()
               if any(target in one for one in rounds)]
    if smaller:
        print(f"\nNot {work.size.told()}, but {'; '.join(smaller)}.")
    sys.stdout.flush()


def keep(args, results):
    """Writes what there is so far: a run that is ended keeps its figures."""
    if not args.json:
        return
    with open(args.json, "w", encoding="utf-8") as file:
        facts = {"rounds": args.rounds, "quick": args.quick, "cores": os.cpu_count(),
                 "system": platform.platform(), "works": results}
        json.dump(facts, file, indent=1)


def measure(args, wanted):
    """Runs the plan: {work: {unit, base, rounds}}, and how many figures are missing."""
    results, n_missing, clock = {}, 0, Clock(wanted, args.rounds)
    say(f"about {_minutes(clock.all_s)} on a quiet machine of two cores: {clock.n_parts} parts")
    with Bed("bench") as bed:
        for name, targets in wanted.items():
            rounds, work = run_work(bed, args, name, targets)
            base = args.base or work.base
            results[name] = {"unit": work.unit, "base": base, "rounds": rounds}
            n_missing += sum(len(targets) - len(one) for one in rounds)
            clock.work_done(name, targets)
            show_work(args, name, rounds, work, base)
            keep(args, results)
            say(clock.told())
    return results, n_missing


def main():
    """Runs what was chosen; fails if a figure is missing."""
    args = arguments()
    if args.list:
        for name, entry in WORKS.items():
            print(f"{name:18} {' '.join(entry.targets)}")
        return 0
    wanted = plan(args)
    if args.needs:
        print(" ".join(works.needs(wanted)))
        return 0
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _frame: sys.exit(128 + number))
    tempfile.tempdir = args.dir
    if not args.quick and shutil.disk_usage(args.dir or tempfile.gettempdir()).free < ROOM_BYTES:
        sys.exit(f"contrib/bench/run: needs {ROOM_BYTES >> 30} GiB of room, see --dir")
    allow_open_files()
    print(HEADER.format(n=args.rounds, cores=os.cpu_count(), system=platform.platform()))
    results, n_missing = measure(args, wanted)
    if args.must:
        lines, n_broken = must.lines(results)
        print(f"\n{'### ' if args.markdown else ''}what slotd is to show\n")
        print("\n".join(laid_out(lines, args.markdown)), flush=True)
        say(f"{len(lines) - 1 - n_broken} of {len(lines) - 1} shown")
    if n_missing:
        say(f"contrib/bench/run: {n_missing} figures are missing, see above")
    return 1 if n_missing else 0


if __name__ == "__main__":
    sys.exit(main())
