#!/usr/bin/env bash
# curl with --retry and --retry-all-errors, and the protocol of $CURL_PROTOCOL. curl_retry.sh http://HOST:PORT KEY[=AMOUNT]...
set -euo pipefail
base=$1
shift
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# A member of the answer, quoted, if it is a string.
member() { sed -n "s/.*\"$1\":\(\"[^\"]*\"\).*/\1/p" "$answer" | head -n 1; }

for call in "$@"; do
  key=${call%%=*}
  amount=1
  [ "$key" = "$call" ] || amount=${call#*=}
  # Who asks for something slow does not wait for it.
  patience=60
  case $key in slow*) patience=3 ;; esac
  began=$(date +%s%3N)
  exit=0
  : >"$answer"
  status=$(printf '{"amount":%s,"note":"%s"}' "$amount" "$(head -c "$amount" /dev/zero | tr '\0' n)" |
    curl --silent --noproxy '*' "${CURL_PROTOCOL:---http1.1}" --max-time "$patience" --retry 3 --retry-all-errors \
      --header "Idempotency-Key: $key" --header 'Content-Type: application/json' --header 'Authorization: Bearer secret' \
      --data-binary @- --fail-with-body --output "$answer" --write-out '%{http_code}' "$base/orders") || exit=$?
  case $status in
    2??) saw="\"id\":$(member id)" ;;
    000) saw="\"raised\":\"curl: ($exit)\"" ;;
    *) code=$(member code); saw="\"status\":$status,\"code\":${code:-null}" ;;
  esac
  printf '{"key":"%s",%s,"ms":%d}\n' "$key" "$saw" "$(($(date +%s%3N) - began))"
done
