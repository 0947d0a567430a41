{{/* What the chart itself decides of nearcase.toml, as JSON: addresses and the places where volumes are mounted. */}}
{{- define "nearcase.managed" -}}
{{- $managed := dict "data" "/data/nearcase" "listen" "0.0.0.0:50051" "health_listen" "0.0.0.0:50052" -}}
{{- if include "nearcase.hasCallers" . }}{{- $_ := set $managed "callers" "/etc/nearcase/callers.toml" }}{{- end -}}
{{- if .Values.metrics.enabled }}{{- $_ := set $managed "metrics_listen" "0.0.0.0:9090" }}{{- end -}}
{{- if eq .Values.tier "qdrant" -}}
{{- $_ := set $managed "index" "qdrant" -}}
{{- $_ := set $managed "qdrant_url" (include "nearcase.qdrantUrl" .) -}}
{{- end -}}
{{- if .Values.encoder.claim }}{{- $_ := set $managed "encoder" (include "nearcase.below" (list "/encoder" .Values.encoder.folder)) }}{{- end -}}
{{- if or .Values.findings.claim .Values.findings.configMap -}}
{{- $_ := set $managed "findings" (include "nearcase.below" (list "/findings" .Values.findings.folder)) -}}
{{- end -}}
{{- range $name, $from := .Values.secrets }}{{- $_ := set $managed $name (printf "/secrets/%s" $name) }}{{- end -}}
{{- if hasKey .Values.secrets "pseudonym_key" -}}
{{- $_ := set $managed "deidentify" true -}}
{{- $_ := set $managed "pseudonym_key" "/run/nearcase/pseudonym_key" -}}
{{- end -}}
{{- if .Values.erasures.enabled }}{{- $_ := set $managed "erasures" "/erasures/erasures.jsonl" }}{{- end -}}
{{- /* Its volume stays where none is kept: claims of a stateful set never change. */ -}}
{{- if and .Values.audit.enabled (ne (include "nearcase.audit" .) "off") }}{{- $_ := set $managed "audit_folder" "/audit/trail" }}{{- end -}}
{{- toJson $managed -}}
{{- end -}}

{{- define "nearcase.audit" -}}
{{- .Values.settings.audit | default "strict" -}}
{{- end -}}

{{- define "nearcase.below" -}}
{{- $folder := index . 1 -}}
{{- if $folder }}{{ index . 0 }}/{{ $folder }}{{ else }}{{ index . 0 }}{{ end -}}
{{- end -}}

{{- define "nearcase.qdrantUrl" -}}
{{- if .Values.qdrantUrl -}}
{{- .Values.qdrantUrl -}}
{{- else -}}
{{- $name := .Values.qdrant.fullnameOverride | default (ternary .Release.Name (printf "%s-qdrant" .Release.Name) (contains "qdrant" .Release.Name)) -}}
{{- $tls := dig "service" "enable_tls" false (.Values.qdrant.config | default dict) -}}
{{- printf "%s://%s.%s.svc:6334" (ternary "https" "http" $tls) ($name | trunc 63 | trimSuffix "-") .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{/* nearcase.toml: strings as JSON writes them, which is how TOML does; whole numbers without a fraction. */}}
{{- define "nearcase.toml" -}}
{{- $settings := merge (fromJson (include "nearcase.managed" .)) (deepCopy .Values.settings) -}}
{{- range $name := keys $settings | sortAlpha }}
{{- $value := index $settings $name }}
{{ $name }} = {{ if kindIs "string" $value }}{{ toJson $value }}
{{- else if kindIs "bool" $value }}{{ $value }}
{{- else if eq (float64 $value) (floor $value) }}{{ printf "%d" (int64 $value) }}
{{- else }}{{ printf "%v" $value }}{{ end }}
{{- end }}
{{- end -}}

{{/* The files of /etc/nearcase. */}}
{{- define "nearcase.settingsFiles" -}}
nearcase.toml: |-
  {{- include "nearcase.toml" . | trim | nindent 2 }}
{{- if include "nearcase.hasCallers" . }}
callers.toml: |-
  {{- include "nearcase.callersToml" . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "nearcase.hasCallers" -}}
{{- if or .Values.callers.tokens.issuer .Values.callers.certificates }}yes{{ end -}}
{{- end -}}

{{/* callers.toml: who may call; the files that it names are mounted secrets. */}}
{{- define "nearcase.callersToml" -}}
{{- with .Values.callers -}}
requests_per_s = {{ int64 .requestsPerSecond }}
{{- if .bytesInFlight }}
bytes_in_flight = {{ int64 .bytesInFlight }}
{{- end }}
{{- if .tls.secret }}

[tls]
certificate = "/secrets/tls/tls.crt"
key = "/secrets/tls/tls.key"
{{- if .tls.clientCa.secret }}
client_ca = "/secrets/tls/client-ca.crt"
{{- end }}
{{- end }}
{{- if .tokens.issuer }}

[tokens]
issuer = {{ toJson .tokens.issuer }}
keys = {{ .tokens.keysUrl | default "/secrets/token-keys" | toJson }}
{{- with .tokens.audience }}
audience = {{ toJson . }}
{{- end }}
{{- with .tokens.rolesClaim }}
roles_claim = {{ toJson . }}
{{- end }}
{{- with .tokens.tenantClaim }}
tenant_claim = {{ toJson . }}
{{- end }}
{{- end }}
{{- range .certificates }}

[[certificate]]
identity = {{ toJson .identity }}
roles = {{ toJson .roles }}
{{- with .tenant }}
tenant = {{ toJson . }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The files of secrets that the server reads, as sources of one projected volume; empty without any. */}}
{{- define "nearcase.secretSources" -}}
{{- range $name, $from := .Values.secrets }}
{{ include "nearcase.secretFile" (dict "from" $from "path" $name) }}
{{- end }}
{{- with .Values.callers.tls.secret }}
{{ include "nearcase.secretFile" (dict "from" (dict "secret" . "key" "tls.crt") "path" "tls/tls.crt") }}
{{ include "nearcase.secretFile" (dict "from" (dict "secret" . "key" "tls.key") "path" "tls/tls.key") }}
{{- end }}
{{- if .Values.callers.tls.clientCa.secret }}
{{ include "nearcase.secretFile" (dict "from" .Values.callers.tls.clientCa "path" "tls/client-ca.crt") }}
{{- end }}
{{- if .Values.callers.tokens.keys.secret }}
{{ include "nearcase.secretFile" (dict "from" .Values.callers.tokens.keys "path" "token-keys") }}
{{- end }}
{{- end -}}
