{{- define "nearcase.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters leave room for what is hung on the name. */}}
{{- define "nearcase.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "nearcase.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "nearcase.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "nearcase.selector" -}}
app.kubernetes.io/name: {{ include "nearcase.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "nearcase.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "nearcase.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "nearcase.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "nearcase.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What the restricted pod security standard asks for, and a root that can not be written. */}}
{{- define "nearcase.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "nearcase.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
{{- end -}}

{{/* Requests and limits with the GPUs, which must be the same in both. */}}
{{- define "nearcase.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.count -}}
{{- $gpus := dict .Values.gpu.resource (printf "%d" (int64 .Values.gpu.count)) -}}
{{- $resources = mergeOverwrite (dict "requests" (dict) "limits" (dict)) $resources (dict "requests" $gpus "limits" $gpus) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* Where commands of this release reach its first server, which keeps the ledger of erasures: by the pod's own address,
so by the container's port, whatever service.port is. */}}
{{- define "nearcase.firstServer" -}}
{{- printf "%s-0.%s-headless.%s.svc:50051" (include "nearcase.fullname" .) (include "nearcase.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* A file of a secret, as a projected volume's item. */}}
{{- define "nearcase.secretFile" -}}
- secret:
    name: {{ .from.secret | quote }}
    items:
      - key: {{ .from.key | quote }}
        path: {{ .path | quote }}
{{- end -}}


{{/* The drain, what comes before it, and time to close the library. */}}
{{- define "nearcase.graceSeconds" -}}
{{- add 35 (ceil (.Values.settings.drain_s | default 10.0)) -}}
{{- end -}}

{{- define "nearcase.smallResources" -}}
requests: {cpu: 10m, memory: 32Mi}
limits: {memory: 128Mi}
{{- end -}}
