"""slotd itself under the bed: its configuration, start, end, and the other commands of its binary."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from bed import ROOT, SECRET, SERVICE, free_port

BINARY = os.path.abspath(os.environ.get("SLOTD", ROOT / "target/debug/slotd"))


def _toml(value):
    """A value as TOML writes it; JSON's spelling of texts, numbers, lists and truths is TOML's."""
    return json.dumps(value)


class Slotd:
    """One slotd beside one server. `tables` are further configuration: {"limits": {"x": 1}},
    or a list of tables of one name."""

    def __init__(self, bed, server, name="slotd", data_dir=None, port=None, group=None, **tables):
        self.bed, self.server, self.name = bed, server, name
        self.dir = bed.sub(name)
        self.data_dir = data_dir or self.dir / "data"
        self.data_dir.mkdir(exist_ok=True, mode=0o700)
        self.port = port or free_port()
        self.conf = self.dir / "slotd.toml"
        secret = self.dir / "component.secret"
        secret.write_text(SECRET + "\n")
        secret.chmod(0o600)
        self.tables = {
            "component": {"jid": SERVICE, "server": f"127.0.0.1:{server.component_port}",
                          "secret_file": str(secret)},
            "http": {"listen": [f"127.0.0.1:{self.port}"],
                     "public_url": f"http://127.0.0.1:{self.port}/"},
            "log": {"level": "debug,hyper=info,tokio_xmpp=info",
                    "audit_file": str(self.dir / "audit.jsonl")},
            "retention": {"report_file": str(self.dir / "deletions.jsonl")},
        }
        for table, values in tables.items():
            if isinstance(values, list):
                self.tables[table] = values
            else:
                self.tables.setdefault(table, {}).update(values)
        self.write()
        # As a unit with Group= runs it, the data directory open to the group.
        within = ["setpriv", "--regid", group, "--keep-groups"] if group else []
        if group:
            shutil.chown(self.data_dir, group=group)
            self.data_dir.chmod(0o710)
        bed.daemons.append(self)
        self.process = bed.process(name, [*within, BINARY, "run", "--config", self.conf])

    def write(self):
        """Writes the configuration file."""
        lines = [f"data_dir = {_toml(str(self.data_dir))}"]
        for table, values in self.tables.items():
            # Written several times.
            for one in values if isinstance(values, list) else []:
                lines += ["", f"[[{table}]]"]
                lines += [f"{key} = {_toml(value)}" for key, value in one.items()]
            if isinstance(values, list):
                continue
            flat = {key: value for key, value in values.items() if not isinstance(value, dict)}
            lines += ["", f"[{table}]"]
            lines += [f"{key} = {_toml(value)}" for key, value in flat.items()]
            for key, value in values.items():
                if isinstance(value, dict):
                    lines += ["", f"[{table}.{key}]"]
                    lines += [f"{_toml(name)} = {_toml(item)}" for name, item in value.items()]
        self.conf.write_text("\n".join(lines) + "\n")

    def written(self):
        """What it wrote for others to read, and what a rotation made of it: {name: text}."""
        log, retention = self.tables["log"], self.tables["retention"]
        named = [log.get("file"), log.get("audit_file"), retention.get("report_file")]
        paths = [self.process.log, self.data_dir / "history.json"]
        for path in map(Path, filter(None, named)):
            paths += sorted(path.parent.glob(f"{path.name}*"))
        texts = {}
        for path in paths:
            # A device, as a log that cannot be written, is none.
            if path.is_file():
                # In two directories a name may be the same.
                before = texts.get(path.name, "")
                texts[path.name] = before + path.read_text(errors="replace")
        return texts

    def start(self):
        """Starts it and waits until its HTTP port answers."""
        self.process.start()
        return self.process.wait_for_port(self.port)

    def stop(self):
        """SIGTERM; the exit status."""
        return self.process.stop()

    def kill(self):
        """kill -9."""
        return self.process.kill()

    def command(self, *words):
        """Runs another command of the binary with this configuration: (exit status, output)."""
        done = subprocess.run([BINARY, *words, "--config", str(self.conf)], text=True, timeout=60,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        return done.returncode, done.stdout.strip()

    def files(self):
        """Every file under the data directory with its size: {relative name: bytes}."""
        found = {}
        for path in self.data_dir.rglob("*"):
            try:
                if path.is_file():
                    found[str(path.relative_to(self.data_dir))] = path.stat().st_size
            except FileNotFoundError:
                continue
        return found

    def files_complete(self):
        """How many files are complete."""
        return sum(name.startswith("files/") for name in self.files())

    def partials(self):
        """The files of uploads that are not complete."""
        return sorted(name for name in self.files() if name.startswith("parts/"))
