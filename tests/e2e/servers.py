"""The real programs around slotd: Prosody, ejabberd, proxies, each in the bed's directory.

Their configurations are the files of contrib/, so that what is shipped is what is proven.
"""

import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bed import CONTRIB, DOMAIN, NEIGHBOR, PASSWORD, SECRET, SERVICE, as_shipped, fill, free_port, run


class Server:
    """An XMPP server: `c2s_port` for clients, `component_port` for slotd."""

    def __init__(self, bed):
        self.bed = bed
        self.dir = bed.sub(self.name)
        bed.certificate()
        self.c2s_port, self.component_port = free_port(), free_port()
        self.neighbor_port = self.component_port

    def start(self):
        """Starts it and waits until clients and components are answered; the seconds it took."""
        self.process.start()
        # A busy machine takes its time for ejabberd.
        return (self.process.wait_for_port(self.c2s_port, within_s=120)
                + self.process.wait_for_port(self.component_port))

    def stop(self):
        """Stops it as an admin does."""
        return self.process.stop()

    def accounts(self, *users):
        """Creates accounts with the common password."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.account, users))


class Prosody(Server):
    """Debian's Prosody with contrib/prosody."""

    name = "prosody"

    def __init__(self, bed):
        super().__init__(bed)
        self.conf = self.dir / "prosody.cfg.lua"
        (self.dir / "data").mkdir()
        for file in ("tls.crt", "tls.key"):
            (self.dir / file).write_bytes((bed.dir / file).read_bytes())
        text = fill((CONTRIB / "prosody/try.cfg.lua").read_text(), dir=self.dir, domain=DOMAIN,
                    c2s_port=self.c2s_port, component_port=self.component_port)
        neighbor = f'\nComponent "{NEIGHBOR}"\n\tcomponent_secret = "{SECRET}"\n'
        self.conf.write_text(text + "\n" + as_shipped("prosody/slotd.cfg.lua") + neighbor)
        self.process = bed.process(self.name, ["prosody", "-F", "--config", self.conf])

    def with_bosh(self):
        """Adds a BOSH connection manager, as the README says; its URL."""
        port = free_port()
        text = self.conf.read_text().replace('"offline" }', '"offline", "bosh" }').replace(
            "http_ports = {}", f"http_ports = {{ {port} }}\nhttp_interfaces = {{ \"127.0.0.1\" }}\n"
            "consider_bosh_secure = true")
        self.conf.write_text(text)
        return f"http://127.0.0.1:{port}/http-bind"

    def account(self, user):
        """Creates an account."""
        run("prosodyctl", "--config", self.conf, "register", user, DOMAIN, PASSWORD)


class Ejabberd(Server):
    """Debian's ejabberd with contrib/ejabberd, without its node name (and so without epmd)."""

    name = "ejabberd"

    def __init__(self, bed):
        super().__init__(bed)
        self.api_port = free_port()
        (self.dir / "tls.pem").write_bytes((bed.dir / "tls.pem").read_bytes())
        text = fill((CONTRIB / "ejabberd/try.yml").read_text(), dir=self.dir, domain=DOMAIN,
                    c2s_port=self.c2s_port, api_port=self.api_port)
        entry = as_shipped("ejabberd/slotd.yml").partition("listen:\n")[2]
        entry = re.sub(r"port: \d+", f"port: {self.component_port}", entry)
        # An entry of its own: ejabberd gives every host of an entry to whoever logs in there.
        self.neighbor_port = free_port()
        neighbor = entry.replace(SERVICE, NEIGHBOR).replace(
            f"port: {self.component_port}", f"port: {self.neighbor_port}")
        (self.dir / "ejabberd.yml").write_text(text + entry + neighbor)
        env = {
            "EJABBERD_CONFIG_PATH": str(self.dir / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": str(self.dir / "ejabberd.log"),
            "ERL_CRASH_DUMP": str(self.dir / "crash.dump"),
            "ERL_LIBS": str(next(Path("/usr/lib").glob("*-linux-gnu*/ejabberd-*")).parent),
        }
        spool = f'"{self.dir}/spool"'
        argv = ["erl", "-noinput", "+K", "true", "-mnesia", "dir", spool, "-s", "ejabberd"]
        self.process = bed.process(self.name, argv, env=env)

    def start(self):
        seconds = super().start()
        return seconds + self.process.wait_for_port(self.api_port)

    def with_bosh(self):
        """Adds a BOSH connection manager, as the README says; its URL."""
        port, conf = free_port(), self.dir / "ejabberd.yml"
        text = conf.read_text().replace("modules:\n", "modules:\n  mod_bosh: {}\n", 1).replace(
            "auth_password_format: scram", "auth_password_format: scram\nauth_scram_hash: sha512")
        conf.write_text(f"{text.rstrip()}\n  -\n    port: {port}\n    ip: \"127.0.0.1\"\n"
                        "    module: ejabberd_http\n    request_handlers:\n"
                        "      /http-bind: mod_bosh\n")
        return f"http://127.0.0.1:{port}/http-bind"

    def account(self, user):
        """Creates an account, through the API of the server's own machine."""
        body = json.dumps({"user": user, "host": DOMAIN, "password": PASSWORD}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.api_port}/api/register", body)
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()


class Nginx:
    """nginx with TLS in front of slotd, with a site of contrib/nginx."""

    def __init__(self, bed, upstream_port, site="slotd.conf", data_dir="/var/lib/slotd",
                 user="root"):
        self.port = free_port()
        name = site.removesuffix(".conf")
        self.dir = bed.sub(f"nginx-{name}")
        bed.certificate()
        site = as_shipped(f"nginx/{site}").replace("/var/lib/slotd", str(data_dir)).replace(
            "listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl").replace(
            "listen [::]:443 ssl;", "").replace("127.0.0.1:5050", f"127.0.0.1:{upstream_port}").replace(
            "/var/log/nginx/error.log", f"{self.dir}/error.log")
        site = re.sub(r"ssl_certificate .*;", f"ssl_certificate {bed.dir}/tls.crt;", site)
        site = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {bed.dir}/tls.key;", site)
        conf = self.dir / "nginx.conf"
        conf.write_text(
            f"daemon off; pid {self.dir}/nginx.pid; error_log stderr warn;\n"
            f"user {user};\nworker_processes 1;\nevents {{ worker_connections 256; }}\n"
            f"http {{ access_log {self.dir}/access.log; client_body_temp_path {self.dir}/body;\n"
            f"proxy_temp_path {self.dir}/proxy; fastcgi_temp_path {self.dir}/f; "
            f"uwsgi_temp_path {self.dir}/u; scgi_temp_path {self.dir}/s;\n{site}\n}}\n")
        self.process = bed.process(f"nginx-{name}", ["nginx", "-p", self.dir, "-c", conf])

    def start(self):
        """Starts it and waits until it answers."""
        self.process.start()
        return self.process.wait_for_port(self.port)


class Apache:
    """Apache with TLS in front of slotd, with contrib/apache."""

    MODULES = "/usr/lib/apache2/modules"

    def __init__(self, bed, upstream_port, data_dir):
        self.port = free_port()
        self.dir = bed.sub("apache")
        bed.certificate()
        site = as_shipped("apache/slotd.conf").replace("/var/lib/slotd", str(data_dir)).replace(
            "*:443", f"127.0.0.1:{self.port}").replace("127.0.0.1:5050", f"127.0.0.1:{upstream_port}")
        site = re.sub(r"SSLCertificateFile .*", f"SSLCertificateFile {bed.dir}/tls.crt", site)
        site = re.sub(r"SSLCertificateKeyFile .*", f"SSLCertificateKeyFile {bed.dir}/tls.key", site)
        modules = ["mpm_event", "authz_core", "reqtimeout", "ssl", "socache_shmcb", "proxy",
                   "proxy_http", "xsendfile"]
        load = "".join(f"LoadModule {name}_module {self.MODULES}/mod_{name}.so\n"
                       for name in modules)
        conf = self.dir / "apache.conf"
        conf.write_text(f"{load}ServerRoot {self.dir}\nPidFile {self.dir}/pid\n"
                        f"DefaultRuntimeDir {self.dir}\nErrorLog {self.dir}/error.log\n"
                        f"ServerName localhost\nListen 127.0.0.1:{self.port}\n"
                        f"User www-data\nGroup www-data\n{site}")
        self.process = bed.process("apache", ["apache2", "-D", "FOREGROUND", "-f", conf])

    def start(self):
        """Starts it and waits until it answers."""
        self.process.start()
        return self.process.wait_for_port(self.port)


class Haproxy:
    """HAProxy with TLS in front of slotd, with contrib/haproxy."""

    def __init__(self, bed, upstream_port):
        self.port = free_port()
        self.dir = bed.sub("haproxy")
        bed.certificate()
        text = as_shipped("haproxy/slotd.cfg").replace(
            "bind :443", f"bind 127.0.0.1:{self.port}").replace(
            "127.0.0.1:5050", f"127.0.0.1:{upstream_port}").replace(
            f"/etc/haproxy/{SERVICE}.pem", f"{bed.dir}/tls.pem")
        text = re.sub(r"\n *bind \[::\].*", "", text)
        conf = self.dir / "haproxy.cfg"
        conf.write_text(f"global\n    log stderr local0\ndefaults\n    log global\n"
                        f"    option httplog\n{text}")
        self.process = bed.process("haproxy", ["haproxy", "-db", "-f", conf])

    def start(self):
        """Starts it and waits until it answers."""
        self.process.start()
        return self.process.wait_for_port(self.port)


class Caddy:
    """Caddy with TLS in front of slotd, with contrib/caddy."""

    def __init__(self, bed, upstream_port):
        self.port = free_port()
        self.dir = bed.sub("caddy")
        bed.certificate()
        text = as_shipped("caddy/Caddyfile").replace(
            f"\n{SERVICE} {{",
            f"\nhttps://localhost:{self.port} {{\n\tbind 127.0.0.1\n"
            f"\ttls {bed.dir}/tls.crt {bed.dir}/tls.key").replace(
            "127.0.0.1:5050", f"127.0.0.1:{upstream_port}").replace(
            "\n{\n", "\n{\n\tadmin off\n\tauto_https disable_redirects\n", 1)
        conf = self.dir / "Caddyfile"
        conf.write_text(text)
        env = {"HOME": str(self.dir), "XDG_DATA_HOME": str(self.dir),
               "XDG_CONFIG_HOME": str(self.dir)}
        argv = ["caddy", "run", "--adapter", "caddyfile", "--config", conf]
        self.process = bed.process("caddy", argv, env=env)

    def start(self):
        """Starts it and waits until it answers."""
        self.process.start()
        return self.process.wait_for_port(self.port)


SERVERS = {"prosody": Prosody, "ejabberd": Ejabberd}
