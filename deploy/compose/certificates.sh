#!/bin/sh
# Creates the TLS files of compose.yaml's Redis in deploy/compose/tls: for local use, valid for 30 days.
# SimpleChat connects to Redis over TLS only.
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
# SimpleChat trusts one file: the system's roots, for Azure, and this CA.
cat "$roots" ca.crt > roots.crt
rm -f redis.csr names ca.key ca.srl openssl.log
# The Redis container reads it as another user.
chmod 644 redis.key
echo "created $(pwd)"
