#!/bin/sh
# Checks that the gateway is still in front of SimpleChat. `azd up` restores SimpleChat's own image, health path,
# app settings and sign-in; run main.bicep again after it. Exit code 0: correct; 1: wrong; 2: a query failed.
# Needs az (signed in) and curl; changes nothing.
set -u

usage='check-after-azd.sh RESOURCE_GROUP APP [URL]'
group=${1:?$usage}
app=${2:?$usage}
problems=0

# ask WHAT COMMAND…: sets $answer to the output of COMMAND, without carriage returns (az tsv on Windows).
ask() {
    what=$1
    shift
    answer=$("$@" | tr -d '\r') && [ -n "$answer" ] || {
        echo "query failed: $what" >&2
        exit 2
    }
}

# holds WHAT FOUND WANTED: compares and reports.
holds() {
    if [ "$2" = "$3" ]; then
        echo "ok      $1: $2"
    else
        echo "WRONG   $1: ${2:-nothing}; should be $3"
        problems=$((problems + 1))
    fi
}

ask 'app' az webapp show -g "$group" -n "$app" --query '[id, defaultHostName]' -o tsv
id=$(printf '%s' "$answer" | head -n 1)
url=${3:-https://$(printf '%s' "$answer" | tail -n 1)}

ask 'configuration' az webapp config show -g "$group" -n "$app" \
    --query '[linuxFxVersion, healthCheckPath || `none`]' -o tsv
holds 'container type (linuxFxVersion)' "$(printf '%s' "$answer" | head -n 1 | tr '[:upper:]' '[:lower:]')" sitecontainers
holds 'health check' "$(printf '%s' "$answer" | tail -n 1)" /gateway/health/ready

ask 'containers' az webapp sitecontainers list -g "$group" -n "$app" \
    --query "join(' ', sort([?isMain || properties.isMain].name)) || 'none'" -o tsv
holds 'main container' "$answer" gateway

ask 'app settings' az webapp config appsettings list -g "$group" -n "$app" \
    --query "[[?name=='GUNICORN_BIND'].value | [0] || 'unset', [?name=='WEBSITES_PORT'].value | [0] || 'unset']" -o tsv
holds 'SimpleChat listens on (GUNICORN_BIND)' "$(printf '%s' "$answer" | head -n 1)" 127.0.0.1:5000
holds 'port (WEBSITES_PORT)' "$(printf '%s' "$answer" | tail -n 1)" 8080

ask 'sign-in' az rest --method get --url "$id/config/authsettingsV2?api-version=2024-11-01" \
    --query "join(' ', sort(properties.globalValidation.excludedPaths || \`[]\`)) || 'none'" -o tsv
holds 'paths without sign-in (excludedPaths)' "$answer" '/.well-known/oauth-protected-resource* /external/*'

# A path without a route: SimpleChat answers 404, App Service's sign-in redirects, the gateway answers 401.
status=$(curl -s -o /dev/null -m 30 -w '%{http_code}' "$url/external/check-after-azd")
holds "$url/external/check-after-azd without a token" "$status" 401

if [ "$problems" -gt 0 ]; then
    echo "$problems wrong: run main.bicep again (docs/deploy/app-service.md)"
    exit 1
fi
echo 'the gateway is in front of SimpleChat'
