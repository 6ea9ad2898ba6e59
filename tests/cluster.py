"""PostgreSQL, Redis and nginx of a test's own, so that it may stop and kill them; and several
processes of Latchkey that share them."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import peewee
import redis

from tests.conftest import need
from tests.server import RunningServer, free_port

PATIENCE_SECONDS = 60
NOBODY_ELSE = "postgres"  # root may not run it


def _postgres_program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else need(name, "apt-get install postgresql")


class Postgres:
    """A server of PostgreSQL with an empty database `latchkey`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"postgresql://{NOBODY_ELSE}@127.0.0.1:{self.port}/latchkey"
        self.data = directory / "data"
        self._run("initdb", "-D", str(self.data), "--auth=trust", "--no-sync", "-U", NOBODY_ELSE)
        self.start()
        self.ask("create database latchkey", database="postgres")

    def _run(self, program: str, *arguments: str) -> None:
        command = [_postgres_program(program), *arguments]
        if os.getuid() == 0:
            shutil.chown(self.directory, NOBODY_ELSE, NOBODY_ELSE)
            as_them = f"--reuid={NOBODY_ELSE}", f"--regid={NOBODY_ELSE}", "--clear-groups"
            command = [need("setpriv"), *as_them, *command]
        with (self.directory / "log").open("a") as log:
            log_to = {"stdout": log, "stderr": log}
            subprocess.run(command, check=True, cwd=self.directory, timeout=120, **log_to)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "-s", *arguments)

    def start(self) -> None:
        own = f"-p {self.port} -c listen_addresses=127.0.0.1 -k '' -c max_connections=200"
        self._control("start", "-o", own)

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is as if the machine had lost its power."""
        self._control("stop", "-m", mode)

    def ask(self, sql: str, *values: object, database: str = "latchkey") -> list[Any]:
        """The rows of an answer, by a connection of its own."""
        url = f"{self.url.rpartition('/')[0]}/{database}"
        server = peewee.PostgresqlDatabase(url, prefer_psycopg3=True)
        try:
            cursor = server.execute_sql(sql, values)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            server.close()


@contextmanager
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="latchkey-postgres-") as directory:
        server = Postgres(Path(directory))
        try:
            yield server
        finally:
            server.stop("immediate")


class RedisServer:
    """A Redis that keeps nothing: each start begins empty."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [need("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with redis.Redis.from_url(self.url) as client:
            until = time.monotonic() + PATIENCE_SECONDS
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    assert time.monotonic() < until
                    time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    try:
        yield server
    finally:
        server.kill()


NGINX = """
daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    upstream latchkey {{ {servers} keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://latchkey;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@contextmanager
def nginx(ports: list[int], directory: Path) -> Iterator[int]:
    """In front of what listens on these ports; its own port."""
    port = free_port()
    servers = " ".join(f"server 127.0.0.1:{one} max_fails=0;" for one in ports)
    configuration = directory / "nginx.conf"
    configuration.write_text(NGINX.format(directory=directory, servers=servers, port=port))
    command = [need("nginx", "apt-get install nginx-light"), "-c", str(configuration)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.terminate()


class Cluster:
    """Several processes, each with a data directory of its own."""

    def __init__(self, directory: Path, database: Postgres, counts: RedisServer, size: int) -> None:
        self.database = database
        self.counts = counts
        shared = {
            "LATCHKEY_DATABASE_URL": database.url,
            "LATCHKEY_REDIS_URL": counts.url,
            "LATCHKEY_SECRET_KEY": "s" * 40,
        }
        self.servers = [
            RunningServer(directory / f"process{number}" / "data", **shared)
            for number in range(size)
        ]
        self.port = 0  # of nginx

    def start(self) -> None:
        """All at once: one migrates, the others wait for it."""
        for server in self.servers:
            server.data_dir.parent.mkdir(parents=True)
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(RunningServer.start, self.servers))

    def stop(self) -> None:
        for server in self.servers:
            server.stop()


@contextmanager
def cluster(directory: Path, size: int = 4) -> Iterator[Cluster]:
    """So many processes on PostgreSQL and Redis, behind nginx."""
    with ExitStack() as stack:
        made = Cluster(
            directory, stack.enter_context(postgres()), stack.enter_context(redis_server()), size
        )
        stack.callback(made.stop)
        made.start()
        ports = [server.port for server in made.servers]
        made.port = stack.enter_context(nginx(ports, directory))
        yield made
