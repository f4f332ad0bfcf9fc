"""Shared parts of the measurements: servers, a client, and the figures of a process.

All servers listen on free ports of 127.0.0.1, keep their files in one temporary folder, and are stopped at the end.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent
# The path of nginx on Debian. Only root has it in PATH by default.
os.environ["PATH"] += ":/usr/sbin"

# A typical production request: a JSON body of 300 bytes and five header fields besides the key.
BODY = b'{"amount":1200,"currency":"eur","reference":"' + b"x" * 253 + b'"}'
AUTHORIZATION = "Bearer 0123456789abcdef0123456789abcdef"


def need(*commands):
    missing = [c for c in commands if not shutil.which(c)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)} (tests/run installs what the project's own checks need)")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def build(profile):
    """Builds the program with a profile of Cargo.toml. Returns its path."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    subprocess.run(["cargo", "build", "--quiet", "--locked", "--profile", profile], cwd=PROJECT, check=True)
    return target / profile / "onlyonce"


class Rig:
    """Servers with a folder for their files. The context manager stops them."""

    def __init__(self, keep=False):
        self.keep = keep
        self.processes = []
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="onlyonce-bench-"))
        # If root starts nginx, its workers run as another user.
        self.folder.chmod(0o755)

    def __enter__(self):
        # An interrupted measurement stops its servers too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            self.stop(process)
        if self.keep:
            print(f"logs and configurations: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self, process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                for pid in tree(process.pid):
                    os.kill(pid, signal.SIGKILL)
                process.wait()

    def start(self, name, command, port, environment=None, patience=60):
        """Starts a server that stays in the foreground, and waits until it listens."""
        log = self.folder / f"{name}.log"
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **(environment or {})})
        self.processes.append(process)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if process.poll() is not None:
                sys.exit(f"{name} ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process
            except OSError:
                time.sleep(0.05)
        sys.exit(f"{name} does not listen on port {port} after {patience} s:\n{log.read_text()[-2000:]}")

    def nginx(self, name, template, port, **values):
        """Starts nginx with a configuration of conf/. Placeholders such as @NAME@ are replaced."""
        text = (HERE / "conf" / template).read_text()
        for key, value in {"DIR": self.folder, "CONF": HERE / "conf", "NAME": name, "PORT": port, **values}.items():
            text = text.replace(f"@{key}@", str(value))
        conf = self.folder / f"{name}.conf"
        conf.write_text(text)
        return self.start(name, ["nginx", "-e", str(self.folder / f"{name}.err"), "-c", str(conf)], port)

    def upstream(self):
        """Starts a backend that answers each POST with 201 and 201 bytes of JSON. Returns its process and port."""
        port = free_port()
        return self.nginx("upstream", "upstream.conf.in", port), port

    def redis(self, name="redis", appendonly=False, tls=False):
        port = free_port()
        folder = self.folder / name
        folder.mkdir()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        command += ["--appendonly", "yes" if appendonly else "no", "--appendfsync", "everysec"]
        if tls:
            # The port without TLS stays for the measurement's own commands.
            cert, key = self.certificate(folder)
            command += ["--tls-port", str(tls), "--tls-cert-file", cert, "--tls-key-file", key]
            command += ["--tls-ca-cert-file", cert, "--tls-auth-clients", "no"]
        return self.start(name, command, port), port

    def certificate(self, folder):
        """A self-signed certificate for 127.0.0.1, and its key."""
        cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
        return cert, key

    def onlyonce(self, binary, upstream, store, name="onlyonce", threads=None, wrapper=(), routes="", patience=60, durability=None, ca=None):
        """Starts the program under measurement. It logs to a file, as shipped. Returns its process and port."""
        port = free_port()
        environment = {}
        server = ""
        if threads:
            # Older versions have no `server.threads`. They use tokio's variable.
            environment["TOKIO_WORKER_THREADS"] = str(threads)
            if '"threads"' in subprocess.run([binary, "schema"], capture_output=True, text=True, check=True).stdout:
                server = f"threads = {threads}\n"
        more = f'durability = "{durability}"\n' if durability else ""
        more += f'ca = "{ca}"\n' if ca else ""
        conf = self.folder / f"{name}.toml"
        conf.write_text(f"""
[server]
listen = "127.0.0.1:{port}"
max_buffered = "2GiB"
{server}
[admin]
listen = "127.0.0.1:{free_port()}"
[upstream]
url = "http://127.0.0.1:{upstream}"
[store]
url = "{store}"
{more}[defaults]
scope = ["header:Authorization"]
max_response_body = "2MiB"
[[route]]
name = "payments"
path = "/payments"
{routes}""")
        command = [*wrapper, str(binary), "serve", "--config", str(conf)]
        return self.start(name, command, port, environment, patience), port


class Connection:
    """One HTTP/1.1 connection of a client that sends each request in one piece."""

    def __init__(self, port):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path="/payments", key=None, body=BODY):
        """Sends a POST. Returns the response's status, head and body."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json\r\nUser-Agent: bench/1\r\nAuthorization: {AUTHORIZATION}\r\n"
            f"Content-Length: {len(body)}\r\n"
        )
        if key:
            head += f"Idempotency-Key: {key}\r\n"
        self.socket.sendall(head.encode() + b"\r\n" + body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.receive()
        head, _, data = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1])
        while len(data) < length:
            data += self.receive()
        return int(head.split()[1]), head, data

    def receive(self):
        data = self.socket.recv(65536)
        if not data:
            raise OSError("the server closed the connection")
        return data

    def close(self):
        self.socket.close()


def tree(pid):
    """A process and its descendants."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                todo += map(int, children.read_text().split())
            except OSError:
                pass
    return found


def circumstances(binary):
    """The circumstances of a measurement: time, version, machine, load and command."""
    processor = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if pathlib.Path(binary).is_relative_to(PROJECT):
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=PROJECT, capture_output=True, text=True)
        version += f" of {commit.stdout.strip() or 'an unknown commit'}"
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 1024 / 1024
    return (
        f"{time.strftime('%d %B %Y %H:%M UTC', time.gmtime())}; {version}\n"
        f"{os.cpu_count()} processors ({processor[1] if processor else 'unknown'}), {memory:.0f} GiB, Linux {os.uname().release}, "
        f"load average {os.getloadavg()[0]:.1f}\n"
        f"command: {' '.join([os.path.relpath(sys.argv[0], PROJECT), *sys.argv[1:]])}\n"
    )
