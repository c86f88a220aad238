# Runs the image of a server in the folder $1 as its user $2; the image's environment and entry point follow.
set -eu
root=$1 user=$2
shift 2

fail() { printf 'FAILED: %s\n' "$*"; exit 1; }
# The address is a socket, so the client needs none of the container's processes.
sql() { chroot --userspec="$user" "$root" /usr/local/lib/postgresql/psql -XAtq -v ON_ERROR_STOP=1 -U postgres -c "$1"; }

mount -t proc proc /proc
mount --rbind /dev "$root/dev"

# The entry point is the first process of a container, and reaps the processes that it leaves.
start() {
    unshare --mount --pid --fork --kill-child sh -c '
        root=$1 user=$2
        shift 2
        mount -t proc proc "$root/proc"
        exec chroot --userspec="$user" "$root" /usr/bin/env -i "$@"' sh "$root" "$user" "$@" > "$root/tmp/log" 2>&1 &
    container=$!
    tries=0
    until sql 'SELECT 1' > /dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries = 1200 ] || ! kill -0 $container 2> /dev/null; then cat "$root/tmp/log"; fail 'the server does not start'; fi
        sleep 0.1
    done
}

first_process() { tr -d ' ' < /proc/$container/task/$container/children; }

# As an engine does: the image's signal to the first process.
stop() {
    kill -INT "$(first_process)"
    wait $container || true
    tail -n 1 "$root/tmp/log" | grep -q 'database system is shut down' || { cat "$root/tmp/log"; fail 'no clean stop'; }
}

# Without a password it names the variables that it needs.
if chroot --userspec="$user" "$root" /usr/bin/env -i "$@" > "$root/tmp/log" 2>&1; then fail 'it starts without a password'; fi
grep POSTGRES_PASSWORD "$root/tmp/log"

start POSTGRES_PASSWORD=secret "$@"
sql 'CREATE EXTENSION pg_clip CASCADE' 2> /dev/null
sql "CREATE TABLE photos (id int PRIMARY KEY, file text, image bytea); SELECT clip_watch('photos')"
sql "INSERT INTO photos SELECT row_number() OVER (), name, pg_read_binary_file('/tmp/' || name)
     FROM pg_ls_dir('/tmp') AS name WHERE name LIKE '%.jpg'"
search="SELECT file FROM image_embeddings JOIN photos ON photos.id = image_id
        ORDER BY embedding <=> clip_embed_text('a pizza') LIMIT 1"
[ "$(sql "$search")" = pizza-1.jpg ] || fail 'a pizza is not found'
sql "SELECT 'embedder ' || state || ', version ' || version FROM clip_status"
# An embedder that dies is started again, and the first process stays.
pid=$(sql 'SELECT pid FROM clip_status')
nsenter --target "$(first_process)" --pid sh -c "kill -KILL $pid"
tries=0
until [ "$(sql "$search" 2> /dev/null)" = pizza-1.jpg ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail 'the embedder does not come back'
    sleep 0.1
done
[ "$(sql 'SELECT pid FROM clip_status')" != "$pid" ] || fail 'the embedder was not killed'
[ "$(sql "SHOW shared_preload_libraries")" = pg_clip ] || fail 'the library is not preloaded'
stop
start "$@"
[ "$(sql "$search")" = pizza-1.jpg ] || fail 'a pizza is not found after the restart'
stop
echo 'photos embedded, a pizza found, an embedder killed and started again, stopped and started: as expected'
