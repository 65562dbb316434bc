{{- define "gateway.secretsFolder" -}}/run/secrets/simplechat-gateway{{- end }}
{{- define "gateway.databaseFolder" -}}/var/lib/simplechat-gateway{{- end }}

{{- /* Environment variables that the chart sets for the gateway: list of {name, value}. */}}
{{- define "gateway.ownEnv" -}}
{{- $v := .Values }}
- {name: TENANT_ID, value: {{ $v.tenantId | quote }}}
- {name: CLIENT_ID, value: {{ $v.clientId | quote }}}
- {name: GATEWAY_LISTEN, value: "0.0.0.0:{{ $v.ports.callers }}"}
- {name: GATEWAY_OPS_LISTEN, value: "{{ ternary "0.0.0.0" "127.0.0.1" $v.metrics.enabled }}:{{ $v.ports.operators }}"}
{{- if eq $v.mode "sidecar" }}
- {name: GATEWAY_UPSTREAM_URL, value: "http://127.0.0.1:{{ $v.simplechat.port }}"}
{{- else }}
- {name: GATEWAY_UPSTREAM_URL, value: {{ $v.upstream.url | quote }}}
{{- with $v.upstream.host }}
- {name: GATEWAY_UPSTREAM_HOST, value: {{ . | quote }}}
{{- end }}
{{- end }}
- {name: GATEWAY_PUBLIC_URLS, value: {{ join "," $v.publicUrls | quote }}}
- {name: GATEWAY_EXTERNAL_ACCESS, value: {{ ternary "managed" (ternary "on" "off" $v.externalAccess.enabled) $v.externalAccess.managed | quote }}}
{{- with $v.externalAccess.acceptedBy }}
- {name: GATEWAY_EXPOSURE_ACCEPTED_BY, value: {{ . | quote }}}
{{- end }}
- {name: GATEWAY_DRAIN_DELAY, value: "{{ $v.drain.delaySeconds }}s"}
- {name: GATEWAY_DRAIN_TIMEOUT, value: "{{ $v.drain.timeoutSeconds }}s"}
- {name: SESSION_TYPE, value: {{ $v.sessions.store | quote }}}
{{- if eq $v.sessions.store "filesystem" }}
- {name: SESSION_FILE_DIR, value: {{ $v.sessions.filesystem.path | quote }}}
- {name: GATEWAY_STATE_DIR, value: "{{ $v.sessions.filesystem.path }}.gateway"}
{{- else if $v.sessions.redis.url }}
- {name: REDIS_URL, value: {{ $v.sessions.redis.url | quote }}}
{{- end }}
{{- if eq $v.database.kind "sqlite" }}
- {name: DATABASE_URL, value: "sqlite:{{ include "gateway.databaseFolder" . }}/gateway.db"}
{{- end }}
{{- range $name := keys $v.secrets | sortAlpha }}
- {name: {{ $name }}_FILE, value: "{{ include "gateway.secretsFolder" $ }}/{{ $name }}"}
{{- end }}
{{- range $name, $value := $v.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- /* Environment variables that the chart sets for SimpleChat's container: list of {name, value}. */}}
{{- define "simplechat.ownEnv" -}}
- {name: GUNICORN_BIND, value: "127.0.0.1:{{ .Values.simplechat.port }}"}
# gunicorn ignores routing headers and accepts header fields as long as the gateway does.
- {name: GUNICORN_CMD_ARGS, value: "--forwarder-headers=X-NONE --limit-request-field_size=16408"}
- {name: TENANT_ID, value: {{ .Values.tenantId | quote }}}
- {name: CLIENT_ID, value: {{ .Values.clientId | quote }}}
- {name: SESSION_FILE_DIR, value: {{ .Values.sessions.filesystem.path | quote }}}
{{- end }}
