#!/usr/bin/env bash
# Prints the Secrets that the manifests refer to, for `kubectl apply -f -`. Keep its output nowhere.
#   inferflux topology credentials --out creds --accounts /dev/null
#   INFERFLUX_API_KEYS=… INFERFLUX_KEY_PEPPER=… INFERFLUX_POLICY_PASSPHRASE=… ops/deploy/kubernetes/make-secrets.sh creds
# What is not set gets a random value. Run it twice and edges know nobody any more: keep what you set.
set -euo pipefail

creds=${1:?usage: make-secrets.sh FOLDER-OF-LOGINS}
random() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
encode() { base64 | tr -d '\n'; }
entry() { printf '  %s: %s\n' "$1" "$(printf %s "$2" | encode)"; }
header() {
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: { name: %s, namespace: inferflux }\ndata:\n' "$1"
}

header inferflux-edge
entry api-keys "${INFERFLUX_API_KEYS:-$(random):generate+read,$(random):read+admin}"
entry key-pepper "${INFERFLUX_KEY_PEPPER:-$(random)}"
entry policy-passphrase "${INFERFLUX_POLICY_PASSPHRASE:-$(random)}"

header inferflux-nats-logins
for role in topology edge worker; do
    printf '  %s: %s\n' "$role" "$(encode <"$creds/$role")"
done

header inferflux-nats-passwords
# A letter first: nats-server reads what looks like a number as one.
entry NATS_ROUTE_PASSWORD "p$(random)"
for role in topology edge worker inspector inspector-full; do
    password=$(sed -n 's/^password: //p' "$creds/$role")
    entry "NATS_PASSWORD_$(printf %s "$role" | tr 'a-z-' 'A-Z_')" "$password"
done
