"""pg_clip through SQL: python through_sql.py MODEL, with the connection in PGHOST and its like."""

import struct
import sys

import psycopg

from worker import System, serve


class ThroughSql(System):
    def __init__(self, model: str) -> None:
        self.model = model
        # Statements are prepared at their first use, and vectors come back as they are stored.
        self.connection = psycopg.connect(autocommit=True, prepare_threshold=0)
        self.cursor = self.connection.cursor(binary=True)

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

    def before_photos(self) -> None:
        """An empty watched table: bytes that are embedded already are not embedded again."""
        photos = f"photos_{self.model}"
        self.cursor.execute(
            f"DROP TABLE IF EXISTS {photos}, embeddings_{self.model};"
            f"CREATE TABLE {photos} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea NOT NULL);"
            f"SET clip.model = '{self.model}';"
            f"SELECT clip_watch('{photos}', 'embeddings_{self.model}')", binary=False,
        )

    def photos(self, ready: list[bytes]) -> None:
        with self.cursor.copy(f"COPY photos_{self.model} (image) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["bytea"])
            for data in ready:
                copy.write_row([data])

    def one(self, query: str, *values: object) -> bytes:
        return self.cursor.execute(query, values).fetchone()[0]


def vector(sent: bytes) -> tuple[float, ...]:
    """pgvector's binary form: the dimensions, a zero, and the values."""
    (dimensions,) = struct.unpack_from("!H", sent)
    return struct.unpack_from(f"!{dimensions}f", sent, 4)


if __name__ == "__main__":
    serve(ThroughSql(sys.argv[1]))
