#!/bin/sh
# Makes what compose.yaml's Redis needs to speak TLS, in deploy/compose/tls: for a laptop, good for 30 days.
# SimpleChat speaks TLS to Redis and nothing else.
set -eu

cd "$(dirname "$0")"
roots=${SYSTEM_ROOTS:-/etc/ssl/certs/ca-certificates.crt}
mkdir -p tls
cd tls

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj '/CN=a laptop' \
    -addext 'keyUsage=critical,keyCertSign' -keyout ca.key -out ca.crt 2> openssl.log
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=redis' \
    -keyout redis.key -out redis.csr 2>> openssl.log
printf '%s\n' 'subjectAltName=DNS:redis,DNS:localhost,IP:127.0.0.1' > names
openssl x509 -req -in redis.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names -out redis.crt \
    2>> openssl.log
# SimpleChat trusts one file: what it needs for Azure, and this.
cat "$roots" ca.crt > roots.crt
rm -f redis.csr names ca.key ca.srl openssl.log
# Redis' container reads it under another user.
chmod 644 redis.key
echo "made $(pwd)"
