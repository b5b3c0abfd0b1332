#!/usr/bin/env bash
# A whole deployment on this machine without containers: nats-servers, edges and workers that know each other only by
# their addresses and logins, as on several machines. Run it in the folder of the repository; Ctrl-C ends everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
source ops/deploy/local/local.env

read -ra nats_ports <<<"$LOCAL_NATS_PORTS"
read -ra cluster_ports <<<"$LOCAL_CLUSTER_PORTS"
read -ra monitor_ports <<<"$LOCAL_MONITOR_PORTS"
read -ra edge_ports <<<"$LOCAL_EDGE_PORTS"
run=$LOCAL_DIR/run
umask 077
mkdir -p "$run" "$LOCAL_DIR/nats"
rm -f "$run"/*

servers=()
processes=()

fail() {
    echo "error: $*" >&2
    exit 1
}

# begin NAME COMMAND…: in the background, with its log and the number of its process in the run folder.
begin() {
    local name=$1
    shift
    "$@" >>"$LOCAL_DIR/$name.log" 2>&1 &
    echo $! >"$run/$name.pid"
}

end_all() {
    trap - EXIT INT TERM
    ((${#processes[@]} == 0)) || kill "${processes[@]}" 2>/dev/null || true
    ((${#processes[@]} == 0)) || wait "${processes[@]}" 2>/dev/null || true
    ((${#servers[@]} == 0)) || kill "${servers[@]}" 2>/dev/null || true
    wait
}
trap end_all EXIT
trap 'exit 0' INT TERM

random() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

# Logins, API keys and what edges have in common: made once.
"$LOCAL_BIN/inferflux" topology credentials --out "$LOCAL_DIR/creds" --accounts "$LOCAL_DIR/nats/accounts.conf" 2>/dev/null
cp ops/deploy/nats/server.conf ops/deploy/nats/cluster.conf "$LOCAL_DIR/nats/"
if [[ ! -e $LOCAL_DIR/secrets.env ]]; then
    {
        echo "INFERFLUX_API_KEYS=$(random):generate+read,$(random):read+admin"
        echo "INFERFLUX_KEY_PEPPER=$(random)"
        echo "INFERFLUX_POLICY_PASSPHRASE=$(random)"
    } >"$LOCAL_DIR/secrets.env"
fi

# The broker.
routes=""
urls=""
route_password="p$(random)"
kind=server
((${#nats_ports[@]} == 1)) || kind=cluster
for place in "${!nats_ports[@]}"; do
    routes+="${routes:+, }nats://route:$route_password@127.0.0.1:${cluster_ports[place]}"
    urls+="${urls:+,}nats://127.0.0.1:${nats_ports[place]}"
done
for place in "${!nats_ports[@]}"; do
    name=nats-$((place + 1))
    NATS_NAME=$name NATS_STORE=$LOCAL_DIR/$name NATS_MAX_FILE=1GB NATS_LISTEN=127.0.0.1:${nats_ports[place]} \
        NATS_MONITOR=127.0.0.1:${monitor_ports[place]} NATS_CLUSTER=127.0.0.1:${cluster_ports[place]:-} \
        NATS_ROUTES="[$routes]" NATS_ROUTE_PASSWORD=$route_password \
        begin "$name" "$LOCAL_BIN/nats-server" -c "$LOCAL_DIR/nats/$kind.conf"
    servers+=("$(<"$run/$name.pid")")
done

export INFERFLUX_NATS_URL=$urls
export INFERFLUX_NATS__CREDENTIALS=$LOCAL_DIR/creds
export INFERFLUX_NATS__REPLICAS=${#nats_ports[@]}
export INFERFLUX_NATS__MAX_FILE_BYTES=1GiB

# Streams, consumers and models, as soon as the servers can.
until "$LOCAL_BIN/inferflux" topology apply --config "$LOCAL_CONFIG" >>"$LOCAL_DIR/topology.log" 2>&1; do
    for pid in "${servers[@]}"; do
        kill -0 "$pid" 2>/dev/null || fail "a nats-server has ended; see $LOCAL_DIR/nats-*.log"
    done
    sleep 0.2
done

# Workers and edges. Only edges get API keys, pepper and passphrase.
names=()
for ((number = 1; number <= LOCAL_WORKERS; number++)); do
    name=worker-$number
    begin "$name" "$LOCAL_BIN/inferflux" worker --config "$LOCAL_CONFIG" --id "$name" \
        --data-dir "$LOCAL_DIR/$name" --ready-file "$run/$name.json"
    processes+=("$(<"$run/$name.pid")")
    names+=("$name")
done
set -a
source "$LOCAL_DIR/secrets.env"
set +a
for place in "${!edge_ports[@]}"; do
    name=edge-$((place + 1))
    begin "$name" "$LOCAL_BIN/inferflux" edge --config "$LOCAL_CONFIG" --id "$name" --port "${edge_ports[place]}" \
        --data-dir "$LOCAL_DIR/$name" --ready-file "$run/$name.json"
    processes+=("$(<"$run/$name.pid")")
    names+=("$name")
done

for name in "${names[@]}"; do
    until [[ -e $run/$name.json ]]; do
        kill -0 "$(<"$run/$name.pid")" 2>/dev/null || fail "$name has ended; see $LOCAL_DIR/$name.log"
        sleep 0.1
    done
done
echo "ready: ${#nats_ports[@]} nats-servers, ${#edge_ports[@]} edges, $LOCAL_WORKERS workers; keys in $LOCAL_DIR/secrets.env"
for port in "${edge_ports[@]}"; do
    echo "  http://127.0.0.1:$port/v1"
done
touch "$run/ready"
wait
