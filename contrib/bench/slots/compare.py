"""Slots a second and CPU time a slot: slotd behind Prosody and ejabberd, and their own modules.

    compare.py [--rounds N] [--seconds S] [--level warn|info] [--only NAME,...] [--slotd BINARY]
               --generator BINARY

Needs both servers installed and the generator built (cargo build --profile quick
-p slotd-bench). Everything listens on loopback and is gone afterwards. One line of JSON a run; at the
end the medians. The load generator shares the machine: judge by ratios within a round.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/e2e"))

import daemon  # noqa: E402
import servers  # noqa: E402
from bed import DOMAIN, PASSWORD, SERVICE, Bed, free_port  # noqa: E402

USERS, WINDOW = 8, 50
# Limits that nobody reaches, so that all are looked at and none refuses.
TABLES = {
    "limits": {"slots_per_minute": 1_000_000, "bytes_per_minute": "1000 GiB"},
    "quota": {"per_requester": "1000 TiB", "per_domain": "1000 TiB", "total": "1000 TiB"},
}


class OwnProsody(servers.Prosody):
    """Prosody with mod_http_file_share in slotd's place."""

    def __init__(self, bed):
        super().__init__(bed)
        http_port = free_port()
        text = self.conf.read_text().partition(f'Component "{SERVICE}"')[0]
        text = text.replace("http_ports = {}", f"http_ports = {{ {http_port} }}")
        text += (f'\nComponent "{SERVICE}" "http_file_share"\n'
                 "\thttp_file_share_size_limit = 100*1024*1024\n"
                 "\thttp_file_share_daily_quota = 1000*1024*1024*1024*1024\n"
                 'Component "neighbor.localhost"\n\tcomponent_secret = "x"\n')
        self.conf.write_text(text)


class OwnEjabberd(servers.Ejabberd):
    """ejabberd with mod_http_upload in slotd's place."""

    def __init__(self, bed):
        super().__init__(bed)
        path, http_port = self.dir / "ejabberd.yml", free_port()
        text = path.read_text()
        text = text.replace(f'"{SERVICE}"', '"other.localhost"').replace(
            "modules:\n",
            f'modules:\n  mod_http_upload:\n    access: all\n    host: "{SERVICE}"\n'
            f'    put_url: "http://localhost:{http_port}/up"\n'
            f'    docroot: "{self.dir}/up"\n')
        path.write_text(text)


def run(name, args):
    """Starts a server, and slotd where it is the one who answers; what the generator says."""
    make = {"prosody": servers.Prosody, "ejabberd": servers.Ejabberd,
            "prosody-own": OwnProsody, "ejabberd-own": OwnEjabberd}[name]
    with Bed(f"bench-{name}") as bed:
        server = make(bed)
        server.start()
        server.accounts(*[f"u{n}" for n in range(USERS)])
        watched = [f"server={server.process.child.pid}"]
        if not name.endswith("-own"):
            slotd = daemon.Slotd(bed, server, log={"level": args.level}, **TABLES)
            slotd.start()
            # At level warn nothing tells of the log-in; it takes a few milliseconds.
            time.sleep(1)
            watched.append(f"slotd={slotd.process.child.pid}")
        command = [args.generator, "--server", f"127.0.0.1:{server.c2s_port}", "--domain", DOMAIN,
                   "--service", SERVICE, "--users", str(USERS), "--window", str(WINDOW),
                   "--seconds", str(args.seconds), "--password", PASSWORD]
        for watch in watched:
            command += ["--watch", watch]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
        return json.loads(done.stdout)


def main():
    """Runs the rounds and prints what they gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--level", default="warn")
    parser.add_argument("--only", default="prosody-own,prosody,ejabberd-own,ejabberd")
    parser.add_argument("--slotd", default=str(ROOT / "target/quick/slotd"))
    parser.add_argument("--generator", default=str(ROOT / "target/quick/bench-slots"))
    args = parser.parse_args()
    daemon.BINARY = args.slotd
    results = {}
    for _ in range(args.rounds):
        for name in args.only.split(","):
            line = run(name, args)
            print(json.dumps({"run": name, **line}), flush=True)
            results.setdefault(name, []).append(line)
    for name, lines in results.items():
        rate = statistics.median(line["per_second"] for line in lines)
        cpu = {who: statistics.median(line["cpu_us_per_slot"][who] for line in lines)
               for who in lines[0]["cpu_us_per_slot"]}
        print(f"{name}: {rate:.0f} slots/s, CPU us a slot: {cpu}")


if __name__ == "__main__":
    main()
