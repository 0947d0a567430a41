{{/* The pod that exports the library; the script is in the command, so that a hook needs nothing that is made later. */}}
{{- define "nearcase.backupPod" -}}
metadata:
  labels:
    {{- include "nearcase.selector" . | nindent 4 }}
    app.kubernetes.io/component: client
spec:
  serviceAccountName: "{{ include "nearcase.fullname" . }}"
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: Never
  securityContext:
    {{- include "nearcase.podSecurity" . | nindent 4 }}
  {{- include "nearcase.pullSecrets" . | nindent 2 }}
  containers:
    - name: export
      image: {{ include "nearcase.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [sh, -c, {{ .Files.Get "files/backup.sh" | toJson }}]
      env:
        - name: NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['batch.kubernetes.io/job-name']
        - name: FOLDER
          value: /backup
        - name: SERVER
          value: {{ include "nearcase.firstServer" . | quote }}
        - name: KEEP
          value: {{ .Values.backup.keep | int64 | toString | quote }}
        - name: TENANTS
          value: {{ include "nearcase.tenantNames" . | quote }}
        {{- include "nearcase.clientEnvironment" . | nindent 8 }}
      securityContext:
        {{- include "nearcase.containerSecurity" . | nindent 8 }}
      resources:
        {{- toYaml .Values.backup.resources | nindent 8 }}
      volumeMounts:
        - name: backup
          mountPath: /backup
        - name: tmp
          mountPath: /tmp
        {{- if include "nearcase.clientSources" . | trim }}
        - name: client
          mountPath: /client
          readOnly: true
        {{- end }}
  volumes:
    - name: backup
      persistentVolumeClaim:
        claimName: {{ .Values.backup.claim | quote }}
    - name: tmp
      emptyDir:
        sizeLimit: 64Mi
    {{- with include "nearcase.clientSources" . | trim }}
    - name: client
      projected:
        defaultMode: 0440
        sources:
          {{- . | nindent 10 }}
    {{- end }}
{{- end -}}
{{/* How jobs show who they are: variables that name mounted files. */}}
{{- define "nearcase.clientEnvironment" -}}
{{- if .Values.client.ca.secret }}
- {name: NEARCASE_CLIENT_CA, value: /client/ca.crt}
{{- end }}
{{- if .Values.client.token.secret }}
- {name: NEARCASE_TOKEN_FILE, value: /client/token}
{{- end }}
{{- if .Values.client.certificate.secret }}
- {name: NEARCASE_CLIENT_CERT, value: /client/tls.crt}
- {name: NEARCASE_CLIENT_KEY, value: /client/tls.key}
{{- end }}
{{- end -}}

{{- define "nearcase.clientSources" -}}
{{- if .Values.client.ca.secret }}
{{ include "nearcase.secretFile" (dict "from" .Values.client.ca "path" "ca.crt") }}
{{- end }}
{{- if .Values.client.token.secret }}
{{ include "nearcase.secretFile" (dict "from" .Values.client.token "path" "token") }}
{{- end }}
{{- with .Values.client.certificate.secret }}
{{ include "nearcase.secretFile" (dict "from" (dict "secret" . "key" "tls.crt") "path" "tls.crt") }}
{{ include "nearcase.secretFile" (dict "from" (dict "secret" . "key" "tls.key") "path" "tls.key") }}
{{- end }}
{{- range .Values.backup.tenants }}
{{- if .token }}
{{ include "nearcase.secretFile" (dict "from" .token "path" (printf "tenants/%s" .name)) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "nearcase.tenantNames" -}}
{{- $names := list -}}
{{- range .Values.backup.tenants }}{{- $names = append $names .name }}{{- end -}}
{{- join " " $names -}}
{{- end -}}
