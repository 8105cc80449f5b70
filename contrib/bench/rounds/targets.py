"""What is measured: slotd and nginx, each as one instance in a directory of its own.

An instance is launched once, with as many slots as its work needs, and may be stopped and started
again. `put_urls` and `get_urls` are then lists of what the load generator uses.
"""

import itertools
import re
import subprocess

from tools import Failed, binary, body_file, run_json, write_urls
from bed import SECRET, SERVICE, as_shipped, free_port

_numbers = itertools.count(1)
# Both sides get the threads or workers that their documentation recommends: one for each core.
N_OPEN_FILES = 20000
# As many connections as slotd has open files for; idle ones need one each, uploads two.


class Target:
    """One instance of a server; `options` are what a variant changes."""

    name = ""

    def __init__(self, bed, **options):
        self.bed, self.options = bed, options
        self.dir = bed.sub(f"{self.name}-{next(_numbers)}")
        self.port = options.get("port") or free_port()
        self.scheme = "https" if options.get("tls") else "http"
        self.base = f"{self.scheme}://127.0.0.1:{self.port}"
        self.processes, self.put_urls, self.get_urls = [], [], []

    def launch(self, n_slots, size):
        """Makes the slots and starts it, in the order it needs."""
        raise NotImplementedError

    def start(self):
        """Starts it again."""
        for process in self.processes:
            process.start()
        self.processes[-1].wait_for_port(self.port)

    def stop(self):
        """Ends it."""
        for process in reversed(self.processes):
            process.stop()

    def pids(self):
        """What is counted as the server."""
        return [process.child.pid for process in self.processes]

    def warm(self):
        """A few requests for nothing: what a server sets up at its start is set up then."""
        urls = write_urls(self.dir / "warm.urls", [f"{self.base}/nothing"])
        run_json("bench-load", ["get", "--urls", urls, "--requests", 64, "--connections", 8])

    def directories(self):
        """Where it keeps files."""
        return [self.dir]

    def lists(self):
        """The URLs as files: (PUT, GET)."""
        return (write_urls(self.dir / "put.urls", self.put_urls),
                write_urls(self.dir / "get.urls", self.get_urls))


class Slotd(Target):
    """slotd without any component: HTTP alone, with slots that bench-mint made."""

    name = "slotd"

    def __init__(self, bed, **options):
        super().__init__(bed, **options)
        self.public = options.get("public") or self.base
        self.data_dir = self.dir / "data"
        self.data_dir.mkdir(mode=0o700)
        self.conf = self.dir / "slotd.toml"
        self.conf.write_text(self._conf())
        self.processes = [bed.process(self.dir.name, [binary("slotd"), "run", "--config", self.conf])]
        self.resume_urls = []

    def _conf(self):
        get = self.options.get
        http = get("http", "")
        if get("tls"):
            pem = self.bed.certificate()
            (pem / "tls.key").chmod(0o600)
            http += f'\n[http.tls]\ncertificate = "{pem}/tls.crt"\nkey = "{pem}/tls.key"\n'
        component = rate = quota = ""
        if get("component_port"):
            secret = self.dir / "component.secret"
            secret.write_text(f"{SECRET}\n")
            secret.chmod(0o600)
            component = (f'[component]\njid = "{SERVICE}"\nsecret_file = "{secret}"\n'
                         f'server = "127.0.0.1:{get("component_port")}"\n')
            # Limits that nobody reaches, so that all are looked at and none refuses.
            rate = 'bytes_per_minute = "1000 GiB"\n'
            quota = ('[quota]\nper_requester = "1000 TiB"\nper_domain = "1000 TiB"\n'
                     'total = "1000 TiB"\n')
        return (f'data_dir = "{self.data_dir}"\ndurability = "{get("durability", "full")}"\n'
                f'[http]\nlisten = ["127.0.0.1:{self.port}"]\npublic_url = "{self.public}/"\n{http}\n{component}'
                f'[limits]\nmax_file_size = "1 GiB"\nidle_for = "24 hours"\n'
                f'slots_per_minute = 1000000\n{rate}'
                f'connections_max = {N_OPEN_FILES}\n'
                f'connections_total_max = {N_OPEN_FILES}\n[access]\ndomains = ["localhost"]\n'
                f'{quota}[log]\nlevel = "{"info" if get("logs_as_installed") else "warn"}"\n')

    def mint(self, n_slots, size, sessions=False):
        """Makes slots while it does not run."""
        lists = {name: self.dir / f"{name}.urls" for name in ("put", "get", "resume")}
        words = [binary("bench-mint"), "--config", self.conf, "--slots", n_slots,
                 "--size", size, "--put-urls", lists["put"], "--get-urls", lists["get"]]
        if sessions:
            words += ["--resume-urls", lists["resume"]]
        done = subprocess.run([str(word) for word in words], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=300)
        if done.returncode:
            raise Failed(f"bench-mint: {done.stdout}")
        self.put_urls = lists["put"].read_text().split()
        self.get_urls = lists["get"].read_text().split()
        if sessions:
            self.resume_urls = lists["resume"].read_text().split()

    def launch(self, n_slots, size):
        self.mint(n_slots, size)
        self.start()


class Nginx(Target):
    """nginx with its DAV module: PUT and GET of plain files, no slots, no checks."""

    name = "nginx"
    # As packaged but for the directory. `tuned` adds what its documentation offers for large bodies.
    tuned = ("client_body_buffer_size 1m; sendfile_max_chunk 2m;\n"
             "open_file_cache max=20000 inactive=10m;\n")

    def __init__(self, bed, **options):
        super().__init__(bed, **options)
        (self.dir / "www").mkdir()
        (self.dir / "www").chmod(0o755)
        site = self._site()
        self.conf = self.dir / "nginx.conf"
        self.conf.write_text(self._frame(site))
        self.processes = [bed.process(self.dir.name, ["nginx", "-p", self.dir, "-c", self.conf])]

    def _frame(self, site):
        temps = "".join(f"{kind}_temp_path {self.dir}/{kind};\n"
                        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        tuned = self.tuned if self.options.get("tuned") else ""
        return (f"daemon off; pid {self.dir}/nginx.pid; error_log stderr crit; user root;\n"
                f"worker_processes auto; worker_rlimit_nofile {N_OPEN_FILES};\n"
                f"events {{ worker_connections {N_OPEN_FILES * 3 // 4}; }}\n"
                f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_timeout 600;\n"
                f"keepalive_requests 1000000; {temps}{tuned}{site}\n}}\n")

    def _site(self):
        tls = ""
        if self.options.get("tls"):
            pem = self.bed.certificate()
            tls = f"ssl_certificate {pem}/tls.crt; ssl_certificate_key {pem}/tls.key;\n"
        ssl = " ssl" if tls else ""
        return (f"server {{ listen 127.0.0.1:{self.port}{ssl} backlog=4096; {tls}"
                f"client_max_body_size 0;\nlocation / {{ root {self.dir}/www; dav_methods PUT; }} }}")

    def launch(self, n_slots, size):
        self.put_urls = self.get_urls = [f"{self.base}/{n}.bin" for n in range(n_slots)]
        self.start()


class Front(Nginx):
    """nginx as the proxy in front of slotd: as contrib/nginx has it, but for TLS."""

    name = "front"

    def _site(self):
        slotd = self.options["slotd"]
        shipped = "nginx/slotd-accel.conf" if self.options.get("accel") else "nginx/slotd.conf"
        site = as_shipped(shipped).replace("127.0.0.1:5050", f"127.0.0.1:{slotd.port}")
        site = site.replace("listen 443 ssl;", f"listen 127.0.0.1:{self.port} backlog=4096;")
        site = re.sub(r"listen \[::\].*|ssl_certificate.*|error_log .*|access_log .*", "", site)
        return site.replace("/var/lib/slotd/", f"{slotd.data_dir}/")


class Behind(Target):
    """slotd behind nginx, both counted together."""

    name = "behind"

    def __init__(self, bed, **options):
        super().__init__(bed, **options)
        accel = options.get("accel")
        http = 'trusted_proxies = ["127.0.0.1"]\n'
        if accel:
            http += 'accel = "x-accel-redirect"\n'
        self.slotd = Slotd(bed, **{**options, "public": self.base, "http": http})
        front = Front(bed, slotd=self.slotd, accel=accel, port=self.port)
        self.processes = [*self.slotd.processes, *front.processes]

    def directories(self):
        return [self.slotd.dir]

    def launch(self, n_slots, size):
        self.slotd.mint(n_slots, size)
        self.put_urls, self.get_urls = self.slotd.put_urls, self.slotd.get_urls
        self.start()


class Sink(Target):
    """A server that does next to nothing: the load generator's own limit."""

    name = "sink"

    def launch(self, n_slots, size):
        argv = [binary("bench-load"), "sink", "--listen", f"127.0.0.1:{self.port}",
                "--file", body_file(self.bed.dir, size)]
        self.processes = [self.bed.process(self.dir.name, argv)]
        self.put_urls = self.get_urls = [f"{self.base}/{n}" for n in range(n_slots)]
        self.start()
