{{/* What the server refuses in its own files is refused before it is installed: it would render, and not start. */}}
{{- define "nearcase.largestRequest" -}}
{{- max (int64 (.Values.settings.max_message_bytes | default 67108864)) (int64 (.Values.settings.max_image_bytes | default 536870912)) -}}
{{- end -}}

{{- define "nearcase.refusalsOfCallers" -}}
{{- $callers := .Values.callers -}}
{{- $ofCallers := eq (.Values.settings.tenants | default "none") "caller" -}}
{{- $hasCallers := include "nearcase.hasCallers" . -}}
{{- if and $ofCallers (not $hasCallers) -}}
{{- fail "settings.tenants: it is caller, and no callers are given" -}}
{{- end -}}
{{- if and (eq (.Values.settings.tenants | default "none") "metadata") $hasCallers -}}
{{- fail "settings.tenants: it is metadata, and callers are given, who name their own; expected caller or none" -}}
{{- end -}}
{{- $identities := list -}}
{{- range $callers.certificates -}}
{{- $identities = append $identities (ternary (lower .identity) .identity (hasPrefix "dns:" .identity)) -}}
{{- if ne $ofCallers (not (empty .tenant)) -}}
{{- fail "callers.certificates: each needs a tenant where settings.tenants is caller, and has none elsewhere" -}}
{{- end -}}
{{- end -}}
{{- if ne (len $identities) (len (uniq $identities)) -}}
{{- fail "callers.certificates: an identity is there twice" -}}
{{- end -}}
{{- $largest := include "nearcase.largestRequest" . | int64 -}}
{{- if and $hasCallers $callers.bytesInFlight (lt (int64 $callers.bytesInFlight) $largest) -}}
{{- fail (printf "callers.bytesInFlight: expected from %d, the largest request that the server takes, or 0" $largest) -}}
{{- end -}}
{{- end -}}

{{- define "nearcase.refusalsOfSettings" -}}
{{- $settings := .Values.settings -}}
{{- $secrets := .Values.secrets -}}
{{- if lt (int64 ($settings.max_bytes_in_flight | default 1073741824)) (include "nearcase.largestRequest" . | int64) -}}
{{- fail "settings.max_bytes_in_flight: expected at least max_message_bytes and max_image_bytes" -}}
{{- end -}}
{{- if and (not $secrets.pseudonym_key) (or (eq ($settings.burned_in | default "refuse") "mask") $settings.trust_plain_images) -}}
{{- fail "settings.burned_in, settings.trust_plain_images: they are for a de-identified library; give secrets.pseudonym_key" -}}
{{- end -}}
{{- range $name, $value := merge (dict) $secrets $settings -}}
{{- if and $value (hasPrefix "audit_" $name) (eq (include "nearcase.audit" $) "off") -}}
{{- fail (printf "%s: it is given, and settings.audit is off" $name) -}}
{{- end -}}
{{- if and (hasPrefix "audit_syslog_" $name) (not $settings.audit_syslog) -}}
{{- fail (printf "secrets.%s: it is given, and settings.audit_syslog is not" $name) -}}
{{- end -}}
{{- end -}}
{{- if ne (empty $secrets.audit_syslog_certificate) (empty $secrets.audit_syslog_key) -}}
{{- fail "secrets.audit_syslog_certificate: give it with audit_syslog_key, or neither" -}}
{{- end -}}
{{- end -}}
