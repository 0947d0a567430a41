{{/* What can not work together is refused here, each with one sentence: the schema can not say why. */}}
{{- define "nearcase.refusals" -}}
{{- $embedded := eq .Values.tier "embedded" -}}
{{- if .Values.gateway.enabled -}}
{{- fail "gateway.enabled: this release of nearcase has no PACS gateway yet; leave it false" -}}
{{- end -}}
{{- $tokens := .Values.callers.tokens -}}
{{- $insecure := .Values.settings.insecure | default false -}}
{{- if not (or (include "nearcase.hasCallers" .) $insecure) -}}
{{- fail "callers: nobody is named who may call; give callers.tokens or callers.certificates, or, to let everyone in, settings.insecure true" -}}
{{- end -}}
{{- if and (include "nearcase.hasCallers" .) (not .Values.callers.tls.secret) (not $insecure) -}}
{{- fail "callers.tls.secret: tokens would be readable on their way; give a certificate, or settings.insecure true where a mesh encrypts" -}}
{{- end -}}
{{- if and .Values.callers.certificates (not .Values.callers.tls.clientCa.secret) -}}
{{- fail "callers.certificates: they are verified by callers.tls.clientCa, which is not given" -}}
{{- end -}}
{{- if and $tokens.issuer (eq (empty $tokens.keysUrl) (empty $tokens.keys.secret)) -}}
{{- fail "callers.tokens: give keysUrl or keys.secret, and not both" -}}
{{- end -}}
{{- if and (not $tokens.issuer) (or $tokens.keysUrl $tokens.keys.secret) -}}
{{- fail "callers.tokens.issuer: keys are given, and no issuer" -}}
{{- end -}}
{{- include "nearcase.refusalsOfCallers" . -}}
{{- include "nearcase.refusalsOfSettings" . -}}
{{- if and .Values.backup.enabled .Values.callers.tls.secret (not .Values.client.ca.secret) -}}
{{- fail "client.ca: the backup connects over TLS, and has to know who signed the server's certificate" -}}
{{- end -}}
{{- if and $embedded (ne (int64 .Values.replicas) 1) -}}
{{- fail "replicas: an embedded library has one server; for several choose tier qdrant" -}}
{{- end -}}
{{- if and $embedded .Values.autoscaling.enabled -}}
{{- fail "autoscaling.enabled: an embedded library has one server; for several choose tier qdrant" -}}
{{- end -}}
{{- range $name, $value := merge (dict) .Values.secrets .Values.settings -}}
{{- if and $embedded (hasPrefix "qdrant_" $name) -}}
{{- fail (printf "%s: it is for tier qdrant, and tier is embedded" $name) -}}
{{- end -}}
{{- end -}}
{{- if and $embedded (or .Values.qdrant.enabled .Values.qdrantUrl) -}}
{{- fail "qdrant: a Qdrant server is given, and tier is embedded; choose tier qdrant" -}}
{{- end -}}
{{- if not $embedded -}}
{{- if and .Values.qdrant.enabled .Values.qdrantUrl -}}
{{- fail "qdrantUrl: give it for a Qdrant of your own, or set qdrant.enabled, but not both" -}}
{{- end -}}
{{- if not (or .Values.qdrant.enabled .Values.qdrantUrl) -}}
{{- fail "qdrantUrl: tier qdrant needs the address of a Qdrant server, or qdrant.enabled" -}}
{{- end -}}
{{- if and .Values.secrets.qdrant_ca (hasPrefix "http:" (include "nearcase.qdrantUrl" .)) (not .Values.secrets.qdrant_api_key) -}}
{{- fail "secrets.qdrant_ca: it is for an https url, or qdrant.config.service.enable_tls" -}}
{{- end -}}
{{- if gt (int64 .Values.settings.qdrant_write_consistency) (int64 (.Values.settings.qdrant_replicas | default 1)) -}}
{{- fail "settings.qdrant_write_consistency: expected at most qdrant_replicas" -}}
{{- end -}}
{{- if and .Values.secrets.qdrant_api_key (hasPrefix "http:" (include "nearcase.qdrantUrl" .)) -}}
{{- fail "secrets.qdrant_api_key: the key would be readable on its way; give an https url, or qdrant.config.service.enable_tls" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int64 .Values.autoscaling.minReplicas) (int64 .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas: expected at most maxReplicas" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not .Values.metrics.enabled) -}}
{{- fail "autoscaling.enabled: it reads the metric nearcase_encoder_queue; set metrics.enabled" -}}
{{- end -}}
{{- $monitored := or .Values.metrics.serviceMonitor.enabled .Values.metrics.prometheusRule.enabled .Values.metrics.dashboard.enabled -}}
{{- if and $monitored (not .Values.metrics.enabled) -}}
{{- fail "metrics.enabled: false, but a part of metrics is enabled" -}}
{{- end -}}
{{- $runtime := .Values.settings.runtime | default "cpu" -}}
{{- if and (ne $runtime "cpu") (not .Values.gpu.count) -}}
{{- fail (printf "gpu.count: settings.runtime is %s, which needs a GPU" $runtime) -}}
{{- end -}}
{{- if and .Values.gpu.buildEngine (ne $runtime "tensorrt") -}}
{{- fail "gpu.buildEngine: engines are for settings.runtime tensorrt" -}}
{{- end -}}
{{- if and .Values.findings.claim .Values.findings.configMap -}}
{{- fail "findings: give claim or configMap, not both" -}}
{{- end -}}
{{- if and .Values.backup.beforeUpgrade (not .Values.backup.enabled) -}}
{{- fail "backup.beforeUpgrade: set backup.enabled with it" -}}
{{- end -}}
{{- end -}}
