#!/bin/sh
# Revokes minted sessions in Redis: all, or those of one user (object id). Browser sessions are not affected.
# Run it while a gateway runs: the gateway keeps them revoked if a request in flight writes one back.
#
#   REDISCLI_AUTH=KEY deploy/end-sessions.sh rediss://HOST:6380/0 [OID]
set -eu

redis=${1:?'end-sessions.sh REDIS_URL [OID]'}
prefix=${SESSION_KEY_PREFIX:-session:}
from='gateway:{notes}:expiries'
[ $# -lt 2 ] || from="gateway:{notes}:subject:$2"

ids=$(redis-cli -u "$redis" -e ZRANGE "$from" 0 -1)
count=0
for id in $ids; do
    redis-cli -u "$redis" -e XADD gateway:ended '*' id "$id" > /dev/null
    redis-cli -u "$redis" -e DEL "$prefix$id" > /dev/null
    count=$((count + 1))
done
echo "ended $count sessions"
