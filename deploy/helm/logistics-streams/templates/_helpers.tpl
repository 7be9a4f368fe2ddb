{{- define "streams.name" -}}
{{- printf "%s-streams" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "streams.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "streams.labels" -}}
{{ include "streams.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "streams.image" -}}
image: {{ if .Values.image.digest }}{{ printf "%s@%s" .Values.image.repository .Values.image.digest | quote }}{{ else }}{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}{{ end }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* What every pod has: no privileges, no token of the cluster's API. */}}
{{- define "streams.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "streams.environment" -}}
- name: KAFKA_BOOTSTRAP_SERVERS
  value: {{ .Values.kafka.bootstrapServers | quote }}
- name: SCHEMA_REGISTRY_URL
  value: {{ .Values.registry.url | quote }}
- name: STREAMS_LOG_FORMAT
  value: json
- name: STREAMS_WEB_HOST
  value: 0.0.0.0
- name: STREAMS_DATA_DIR
  value: /data
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- if .Values.secrets.name }}
{{- range .Values.secrets.keys }}
- name: {{ . }}_FILE
  value: /run/secrets/streams/{{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "streams.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: data
  mountPath: /data
{{- if .Values.secrets.name }}
- name: secrets
  mountPath: /run/secrets/streams
  readOnly: true
{{- end }}
{{- range .Values.extraVolumeMounts }}
- {{ toJson . }}
{{- end }}
{{- end -}}

{{- define "streams.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if .Values.secrets.name }}
- name: secrets
  secret:
    secretName: {{ .Values.secrets.name }}
    defaultMode: 0440
{{- end }}
{{- range .Values.extraVolumes }}
- {{ toJson . }}
{{- end }}
{{- end -}}
