"""A client of the old stack: python old_stack.py WEIGHTS, with PostgreSQL in PGHOST and its like.

It asks the service over a connection that stays, and stores what comes back in pgvector.
"""

import base64
import subprocess
import sys
from pathlib import Path

import psycopg
import requests

from worker import System, serve


class OldStack(System):
    def __init__(self, url: str, service: int) -> None:
        self.url, self.service = url, service
        self.session = requests.Session()
        self.connection = psycopg.connect(autocommit=True, prepare_threshold=0)

    def for_a_client(self) -> "OldStack":
        return OldStack(self.url, self.service)

    def processes(self) -> list[int]:
        return [self.service]

    def text(self, text: str) -> list[float]:
        return self.ask("text", {"text": text})

    def photo(self, data: bytes) -> list[float]:
        return self.ask("image", {"image": base64.b64encode(data).decode()})

    def search(self, text: str) -> None:
        query = "SELECT id FROM searched ORDER BY embedding <=> %s::vector LIMIT 10"
        assert len(self.connection.execute(query, (str(self.text(text)),)).fetchall()) == 10

    def before_photos(self) -> None:
        self.connection.execute("DROP TABLE IF EXISTS old_stack")
        self.connection.execute("CREATE TABLE old_stack (id bigserial PRIMARY KEY, image bytea, embedding vector(512))")
        self.connection.execute("CREATE INDEX ON old_stack USING hnsw (embedding vector_cosine_ops)")

    def photos(self, ready: list[bytes]) -> None:
        for data in ready:
            insert = "INSERT INTO old_stack (image, embedding) VALUES (%b, %s::vector)"
            self.connection.execute(insert, (data, str(self.photo(data))))

    def ask(self, what: str, content: dict) -> list[float]:
        response = self.session.post(f"{self.url}/embed/{what}", json=content)
        response.raise_for_status()
        return response.json()["embedding"]


if __name__ == "__main__":
    command = [sys.executable, Path(__file__).with_name("service.py"), sys.argv[1]]
    service = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    port = service.stdout.readline().strip()
    if not port:
        raise SystemExit("the service did not start")
    serve(OldStack(f"http://127.0.0.1:{port}", service.pid))
    service.stdin.close()
    service.wait()
