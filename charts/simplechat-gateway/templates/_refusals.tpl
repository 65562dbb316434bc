{{- /* Checks that the schema cannot express. All problems are reported at once. */}}
{{- define "gateway.refusals" -}}
{{- $v := .Values }}
{{- $problems := list }}
{{- if not (has $v.mode (list "sidecar" "front")) }}
{{- $problems = append $problems "mode: is required: sidecar (in SimpleChat's pod) or front (in front of SimpleChat's Service)" }}
{{- end }}
{{- if not $v.image.repository }}
{{- $problems = append $problems "image.repository: is required: there is no public image; build one and push it to your registry" }}
{{- end }}
{{- range $name := list "tenantId" "clientId" }}
{{- if not (get $v $name) }}
{{- $problems = append $problems (printf "%s: is required; use SimpleChat's value" $name) }}
{{- end }}
{{- end }}
{{- if not $v.publicUrls }}
{{- $problems = append $problems "publicUrls: is required: the public origins, the canonical one first" }}
{{- end }}
{{- if and $v.externalAccess.enabled (not $v.externalAccess.acceptedBy) }}
{{- $problems = append $problems "externalAccess.acceptedBy: is required with externalAccess.enabled: tenant and app ids become public; name the person who accepted that" }}
{{- end }}

{{- if and $v.externalAccess.managed $v.externalAccess.enabled }}
{{- $problems = append $problems "externalAccess.managed: externalAccess.enabled is also set; set one of them" }}
{{- end }}
{{- if and $v.externalAccess.managed (eq $v.database.kind "none") }}
{{- $problems = append $problems "database.kind: is required with externalAccess.managed: administrators' decisions are stored in a database (sqlite for one replica, postgres for several)" }}
{{- end }}
{{- if eq $v.database.kind "sqlite" }}
{{- if or $v.autoscaling.enabled (ne (int $v.replicas) 1) }}
{{- $problems = append $problems "replicas: SQLite's file is for one pod: set replicas: 1 and autoscaling.enabled: false, or database.kind: postgres" }}
{{- end }}
{{- if not $v.database.sqlite.existingClaim }}
{{- $problems = append $problems "database.sqlite.existingClaim: is required with database.kind sqlite: the activity log must survive the pod" }}
{{- end }}
{{- end }}
{{- $hasUrl := hasKey $v.secrets "DATABASE_URL" }}
{{- if and (eq $v.database.kind "postgres") (not $hasUrl) }}
{{- $problems = append $problems "secrets.DATABASE_URL: is required with database.kind postgres" }}
{{- end }}
{{- if and $hasUrl (ne $v.database.kind "postgres") }}
{{- $problems = append $problems "secrets.DATABASE_URL: does nothing without database.kind postgres" }}
{{- end }}

{{- if eq $v.mode "sidecar" }}
{{- if not $v.simplechat.image.repository }}
{{- $problems = append $problems "simplechat.image.repository: is required with mode sidecar" }}
{{- end }}
{{- if not (or $v.simplechat.image.tag $v.simplechat.image.digest) }}
{{- $problems = append $problems "simplechat.image: names neither tag nor digest; set one" }}
{{- end }}
{{- end }}
{{- if eq $v.mode "front" }}
{{- if not $v.upstream.url }}
{{- $problems = append $problems "upstream.url: is required with mode front, e.g. http://simplechat.chat.svc:5000" }}
{{- end }}
{{- if not (or $v.upstream.podSelector $v.upstream.guardedElsewhere) }}
{{- $problems = append $problems "upstream.podSelector: is required with mode front: SimpleChat must be reachable through the gateway only, and a NetworkPolicy for these pods enforces it; or set upstream.guardedElsewhere: true" }}
{{- end }}
{{- if and $v.upstream.podSelector (not $v.networkPolicy.enabled) }}
{{- $problems = append $problems "upstream.podSelector: does nothing without networkPolicy.enabled" }}
{{- end }}
{{- if eq $v.sessions.store "filesystem" }}
{{- $problems = append $problems "sessions.store: filesystem needs mode sidecar: gateway and SimpleChat share one folder" }}
{{- end }}
{{- end }}

{{- if eq $v.sessions.store "filesystem" }}
{{- if or $v.autoscaling.enabled (ne (int $v.replicas) 1) }}
{{- $problems = append $problems "replicas: filesystem sessions live in one pod: set replicas: 1 and autoscaling.enabled: false, or sessions.store: redis" }}
{{- end }}
{{- else if and $v.sessions.redis.url (hasKey $v.secrets "REDIS_URL") }}
{{- $problems = append $problems "sessions.redis.url: secrets.REDIS_URL is also set; set one of them" }}
{{- else if not (or $v.sessions.redis.url (hasKey $v.secrets "REDIS_URL")) }}
{{- $problems = append $problems "sessions.redis.url: is required with sessions.store redis; with a password in it, set secrets.REDIS_URL instead" }}
{{- end }}

{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.callers) }}
{{- $problems = append $problems "networkPolicy.callers: is required: the peers that can reach the gateway, e.g. [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}]" }}
{{- end }}
{{- if $v.networkPolicy.enabled }}
{{- $anywhere := "; [{ipBlock: {cidr: 0.0.0.0/0}}] opens that port to any address" }}
{{- if and (eq $v.sessions.store "redis") (not $v.networkPolicy.redis) }}
{{- $problems = append $problems (printf "networkPolicy.redis: is required with sessions.store redis: the peers of Redis, e.g. [{ipBlock: {cidr: 10.1.2.4/32}}] for a private endpoint, or [{podSelector: {matchLabels: {app: redis}}}]%s" $anywhere) }}
{{- end }}
{{- if and (eq $v.database.kind "postgres") (not $v.networkPolicy.postgres) }}
{{- $problems = append $problems (printf "networkPolicy.postgres: is required with database.kind postgres: the peers of PostgreSQL, e.g. [{ipBlock: {cidr: 10.1.2.5/32}}] for a private endpoint, or [{podSelector: {matchLabels: {app: postgres}}}]%s" $anywhere) }}
{{- end }}
{{- if and (eq $v.mode "front") $v.upstream.guardedElsewhere (not (or $v.upstream.podSelector $v.networkPolicy.upstream)) }}
{{- $problems = append $problems (printf "networkPolicy.upstream: is required with upstream.guardedElsewhere and without upstream.podSelector: the peers of SimpleChat, e.g. [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: chat}}, podSelector: {matchLabels: {app: simplechat}}}]%s" $anywhere) }}
{{- end }}
{{- end }}
{{- if and $v.metrics.enabled (not (and $v.networkPolicy.enabled $v.networkPolicy.scrapers)) }}
{{- $problems = append $problems "networkPolicy.scrapers: is required with metrics.enabled, and so is networkPolicy.enabled: the management port is then not on loopback and must accept the scraper only" }}
{{- end }}
{{- if and $v.workloadIdentity.enabled (not $v.workloadIdentity.clientId) $v.serviceAccount.create }}
{{- $problems = append $problems "workloadIdentity.clientId: is required with workloadIdentity.enabled" }}
{{- end }}

{{- if $v.ingress.enabled }}
{{- if not $v.ingress.hosts }}
{{- $problems = append $problems "ingress.hosts: is required with ingress.enabled" }}
{{- end }}
{{- if not $v.ingress.tlsSecretName }}
{{- $problems = append $problems "ingress.tlsSecretName: is required with ingress.enabled: requests carry tokens" }}
{{- end }}
{{- range $host := $v.ingress.hosts }}
{{- if not (has (printf "https://%s" $host) $v.publicUrls) }}
{{- $problems = append $problems (printf "ingress.hosts: https://%s is not among publicUrls: its metadata request would get 421" $host) }}
{{- end }}
{{- end }}
{{- end }}

{{- range $list := list "extraEnv" "simplechat.env" }}
{{- $given := ternary $v.extraEnv $v.simplechat.env (eq $list "extraEnv") }}
{{- $own := include (ternary "gateway.ownEnv" "simplechat.ownEnv" (eq $list "extraEnv")) $ | fromYamlArray }}
{{- $names := list }}
{{- range concat $own $given }}
{{- if has .name $names }}
{{- $problems = append $problems (printf "%s: %s is set already by another value of this chart" $list .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- range $given }}
{{- $isNamedSo := regexMatch "(PASSWORD|SECRET|KEY|TOKEN|CONNECTION_STRING)$" .name }}
{{- $holdsOne := regexMatch "://[^/]*:[^/]*@" (.value | default "") }}
{{- if or (and $isNamedSo .value) $holdsOne }}
{{- $problems = append $problems (printf "%s: %s holds a secret: use a Secret and valueFrom" $list .name) }}
{{- end }}
{{- end }}
{{- end }}

{{- if $problems }}
{{- $noun := ternary "problem" "problems" (eq (len $problems) 1) }}
{{- fail (printf "\n%d %s with the values:\n  %s" (len $problems) $noun (join "\n  " $problems)) }}
{{- end }}
{{- end }}
