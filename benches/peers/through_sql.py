"""pg_clip through SQL: python through_sql.py MODEL, with the connection in PGHOST and its like."""

import os
import signal
import struct
import sys
import time

import psycopg

from worker import System, serve


# About what a new text takes.
WAIT_MS = 12
# As src/extension/supervisor has it, and a second more.
GOOD_LIFE = 11


class ThroughSql(System):
    def __init__(self, model: str) -> None:
        self.model = model
        # Statements are prepared at their first use, and vectors come back as they are stored.
        self.connection = psycopg.connect(autocommit=True, prepare_threshold=0)
        self.cursor = self.connection.cursor(binary=True)
        self.shop: psycopg.Connection | None = None
        self.stores_only = False
        self.seen = {kind: self.inferences(kind) for kind in ("text", "image")}

    def for_a_client(self) -> "ThroughSql":
        return ThroughSql(self.model)

    def text(self, text: str) -> tuple[float, ...]:
        return vector(self.one("SELECT clip_embed_text(%s, %s)", text, self.model))

    def photo(self, data: bytes) -> tuple[float, ...]:
        return vector(self.one("SELECT clip_embed_image(%b, %s)", data, self.model))

    def cached(self) -> None:
        self.one("SELECT clip_embed_text(%s, %s)", "a photo of a dog", self.model)

    def select_1(self) -> None:
        self.one("SELECT %s::int", 1)

    def wait(self) -> None:
        self.one("SELECT pg_sleep(%s)", WAIT_MS / 1e3)

    def search(self, text: str) -> None:
        found = self.cursor.execute(
            "SELECT id FROM searched ORDER BY embedding <=> clip_embed_text(%s, %s) LIMIT 10", (text, self.model),
        )
        assert len(found.fetchall()) == 10

    def before_photos(self) -> None:
        """An empty watched table: bytes that are embedded already are not embedded again."""
        self.stores_only = False
        self.shop = self.shop or self.database_of_the_model()
        for statement in (
            "DROP TABLE IF EXISTS photos, image_embeddings",
            "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea NOT NULL)",
            "SELECT clip_watch('photos')",
        ):
            self.shop.execute(statement)

    def database_of_the_model(self) -> psycopg.Connection:
        """A database embeds with one model: the queue's worker has no session to set another one in."""
        name = f"shop_{self.model}"
        for statement in (f"CREATE DATABASE {name}", f"ALTER DATABASE {name} SET clip.model = '{self.model}'"):
            self.connection.execute(statement)
        shop = psycopg.connect(dbname=name, autocommit=True)
        shop.execute("CREATE EXTENSION pg_clip CASCADE")
        return shop

    def photos(self, ready: list[bytes]) -> None:
        with self.shop.cursor().copy("COPY photos (image) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["bytea"])
            for data in ready:
                copy.write_row([data])

    def photos_unwatched(self, ready: list[bytes]) -> None:
        """The time of storing alone."""
        self.shop.execute("SELECT clip_unwatch('photos')")
        self.stores_only = True
        self.photos(ready)

    def photos_by_function(self, ready: list[bytes]) -> None:
        self.one("SELECT clip_embed_images(%b::bytea[], %s)", ready, self.model)

    def photos_by_queue(self, ready: list[bytes]) -> None:
        """The same COPY into a table whose photos wait for the worker, until none of them waits."""
        self.shop.execute("SELECT clip_unwatch('photos')")
        self.shop.execute("SELECT clip_watch('photos', mode => 'async')")
        self.photos(ready)
        while self.shop.execute("SELECT count(*) FROM image_embeddings").fetchone()[0] < len(ready):
            # Often enough for a figure of seconds, and seldom enough to cost nothing.
            time.sleep(0.01)

    def processes(self) -> list[int]:
        return [self.connection.execute("SELECT pid FROM clip_status").fetchone()[0]]

    def make_default(self) -> None:
        """Has the embedder load this model when it starts, and no other."""
        self.connection.execute(f"ALTER SYSTEM SET clip.model = '{self.model}'")
        self.connection.execute("SELECT pg_reload_conf()")
        loaded = None
        # One may have been started before the supervisor read its settings again.
        while loaded != [self.model]:
            self.restart()
            loaded = self.connection.execute("SELECT array_agg(name) FROM clip_models WHERE loaded").fetchone()[0]
        # One that dies young is not started again at once.
        (age,) = self.connection.execute("SELECT extract(epoch FROM now() - started_at)::float FROM clip_status").fetchone()
        time.sleep(max(0, GOOD_LIFE - age))

    def restart(self) -> None:
        """A new embedder, until it has answered."""
        (process,) = self.processes()
        os.kill(process, signal.SIGKILL)
        self.one("SELECT clip_embed_text(%s, %s)", "a photo after a start", self.model)

    def connections(self) -> None:
        """A hundred more connections that have each asked for a text."""
        self.more = [self.for_a_client() for _ in range(100)]
        for number, client in enumerate(self.more):
            client.text(f"a photo of {number} connections")

    def disconnections(self) -> None:
        for client in self.more:
            client.connection.close()

    def has_embedded(self, kind: str, count: int) -> None:
        if self.stores_only:
            return
        (process, before), (now_process, now) = self.seen[kind], self.inferences(kind)
        # An embedder that was started since counts from zero.
        done = now - before if process == now_process else now
        self.seen[kind] = (now_process, now)
        # Two of a few thousand random texts may be the same.
        if done < 0.99 * count:
            raise SystemExit(f"pg_clip embedded {done} of {count}: the others it remembered")

    def inferences(self, kind: str) -> tuple[int, int]:
        """The embedder's process, and how many inputs went through its network."""
        query = "SELECT coalesce(sum(inferences), 0)::bigint FROM clip_stats WHERE kind = %s AND model = %s"
        return self.processes()[0], self.connection.execute(query, (kind, self.model)).fetchone()[0]

    def one(self, query: str, *values: object) -> bytes:
        return self.cursor.execute(query, values).fetchone()[0]


def vector(sent: bytes) -> tuple[float, ...]:
    """pgvector's binary form: the dimensions, a zero, and the values."""
    (dimensions,) = struct.unpack_from("!H", sent)
    return struct.unpack_from(f"!{dimensions}f", sent, 4)


if __name__ == "__main__":
    serve(ThroughSql(sys.argv[1]))
