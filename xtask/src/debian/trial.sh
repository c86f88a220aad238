# Installs pg_clip's packages in a bare Debian, uses them as a user does, and takes them off again: nothing may stay.
# The folder /trial holds the packages and photos; $1 is the major version of PostgreSQL.
set -eu
major=$1
extension=postgresql-$major-pg-clip

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; exit 1; }
sql() { runuser -u postgres -- psql --cluster "$major/trial" -XAtq -v ON_ERROR_STOP=1 -c "$1" "${2:-shop}"; }
apt() { apt-get -o Dpkg::Use-Pty=0 --yes --quiet=2 "$@" > /trial/log 2>&1 || { cat /trial/log; fail "apt-get $1"; }; }
cluster() { pg_ctlcluster "$major" trial "$1"; }

# Waits until a query answers 1.
await() {
    tries=0
    until [ "$(sql "$1")" = 1 ]; do
        tries=$((tries + 1))
        if [ $tries = 1200 ]; then fail "never true: $1"; fi
        sleep 0.1
    done
}

# Every file, folder and link with its owner, mode and size, but for the notes of dpkg and apt on their own work.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /trial -o -path /var/lib/dpkg -o -path /var/lib/apt \
        -o -path /var/cache -o -path /var/log/dpkg.log -o -path /var/log/apt -o -path /var/log/alternatives.log \) -prune \
        -o -type d -printf '%p %M %u:%g\n' -o -printf '%p %M %u:%g %s %l\n' | sort
}

embedders() { cat /proc/[0-9]*/comm | grep -c pg_clip || true; }

for program in cargo rustc python3 gcc cc clang make; do
    if command -v $program; then fail "the root has $program"; fi
done
files > /trial/before

say "apt-get install $(cd /trial && echo ./*.deb)"
apt install /trial/*.deb
dpkg --verify $extension pg-clip-embedder
files > /trial/installed
printf 'files installed:\n'
comm -13 /trial/before /trial/installed | cut -d ' ' -f 1,4-

say "a cluster that preloads the library, with a watched table"
pg_createcluster "$major" trial > /trial/log
echo "shared_preload_libraries = 'pg_clip'" >> "/etc/postgresql/$major/trial/postgresql.conf"
cluster start
sql 'CREATE DATABASE shop' postgres
sql 'CREATE EXTENSION pg_clip CASCADE' 2> /trial/notice
sql "CREATE TABLE photos (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, file text, image bytea)"
sql "SELECT clip_watch('photos', mode => 'async')"
sql "INSERT INTO photos (file, image) SELECT name, pg_read_binary_file('/trial/' || name)
     FROM pg_ls_dir('/trial') AS name WHERE name LIKE '%.jpg'"
await "SELECT (count(*) = (SELECT count(*) FROM photos))::int FROM image_embeddings"
sql "SELECT count(*) || ' photos embedded, ' || pg_clip.extversion FROM image_embeddings, pg_extension AS pg_clip
     WHERE extname = 'pg_clip' GROUP BY extversion"
search="SELECT file FROM image_embeddings JOIN photos ON photos.id = image_id
        ORDER BY embedding <=> clip_embed_text('a pizza') LIMIT 1"
found=$(sql "$search")
[ "$found" = pizza-1.jpg ] || fail "a pizza is $found"
say "a search for a pizza found $found"

say "a restart"
cluster restart
[ "$(sql "$search")" = "$found" ] || fail 'another photo after the restart'
sql "SELECT 'embedder ' || state || ', version ' || version || ', sandbox ' || sandbox FROM clip_status"

say "the command line"
pg_clip_embedder check demo
pg_clip_embedder import /var/lib/pg_clip/models/demo --name another
pg_clip_embedder list

say "DROP EXTENSION, and the library out of the settings"
sql "SELECT clip_unwatch('photos'); DROP TABLE image_embeddings; DROP EXTENSION pg_clip"
[ "$(sql "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")" = 0 ] || fail 'a trigger stayed'
sed -i '/pg_clip/d' "/etc/postgresql/$major/trial/postgresql.conf"
cluster restart
[ "$(embedders)" = 0 ] || fail 'an embedder still runs'

say "apt-get remove: models that were added stay"
apt remove $extension pg-clip-embedder
[ -d /var/lib/pg_clip/models/another ] || fail 'the added model is gone'
apt install /trial/*.deb
pg_clip_embedder check another > /trial/log
say "apt-get purge"
apt purge $extension pg-clip-embedder
[ "$(sql 'SELECT count(*) FROM photos')" -gt 0 ] || fail 'the photos are gone'
pg_dropcluster --stop "$major" trial
files > /trial/after
if ! diff /trial/before /trial/after; then fail 'something stayed behind, or is missing'; fi
printf '%s files and folders before, %s while installed, %s after: no difference\n' \
    "$(wc -l < /trial/before)" "$(wc -l < /trial/installed)" "$(wc -l < /trial/after)"
