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

{{/* Keys of the Secret that a component needs: those of clusters everyone, tokens of the review page the monitor, those
of targets the sinks. The argument is (list . "worker"). */}}
{{- define "streams.keys" -}}
{{- $component := index . 1 -}}
{{- $found := list -}}
{{- with (index . 0).Values.secrets -}}
{{- if .name -}}
{{- range .keys -}}
{{- $owner := "" -}}
{{- if or (hasPrefix "STREAMS_REVIEW_" .) (eq . "STREAMS_ADMIN_TOKEN") -}}
{{- $owner = "monitor" -}}
{{- else if hasPrefix "STREAMS_" . -}}
{{- $owner = "sink" -}}
{{- end -}}
{{- if or (not $owner) (eq $owner $component) -}}
{{- $found = append $found . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* The argument of this, of the mounts and of the volumes: (list . "worker"). */}}
{{- define "streams.environment" -}}
{{- $root := index . 0 -}}
- name: KAFKA_BOOTSTRAP_SERVERS
  value: {{ $root.Values.kafka.bootstrapServers | quote }}
- name: SCHEMA_REGISTRY_URL
  value: {{ $root.Values.registry.url | quote }}
- name: STREAMS_LOG_FORMAT
  value: json
- name: STREAMS_WEB_HOST
  value: 0.0.0.0
- name: STREAMS_DATA_DIR
  value: /data
{{- range $name, $value := $root.Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range fromJsonArray (include "streams.keys" .) }}
- name: {{ . }}_FILE
  value: /run/secrets/streams/{{ . }}
{{- end }}
{{- end -}}

{{- define "streams.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: data
  mountPath: /data
{{- if fromJsonArray (include "streams.keys" .) }}
- name: secrets
  mountPath: /run/secrets/streams
  readOnly: true
{{- end }}
{{- range (index . 0).Values.extraVolumeMounts }}
- {{ toJson . }}
{{- end }}
{{- end -}}

{{- define "streams.volumes" -}}
- name: tmp
  emptyDir: {}
{{- with fromJsonArray (include "streams.keys" .) }}
- name: secrets
  secret:
    secretName: {{ (index $ 0).Values.secrets.name }}
    defaultMode: 0440
    items:
      {{- range . }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}
{{- range (index . 0).Values.extraVolumes }}
- {{ toJson . }}
{{- end }}
{{- end -}}

{{/* Keys and endpoint of object stores, for the pods that use one (docs/object-stores.md): four parts of their pods. */}}
{{- define "streams.objectStoreAccountName" -}}
{{- $account := .Values.objectStore.serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (printf "%s-objects" (include "streams.name" .)) -}}
{{- else -}}
{{- $account.name -}}
{{- end -}}
{{- end -}}

{{- define "streams.objectStoreAccount" -}}
{{- with include "streams.objectStoreAccountName" . }}
serviceAccountName: {{ . }}
{{- end }}
{{- end -}}

{{- define "streams.objectStoreVariables" -}}
{{- range $name, $value := .Values.objectStore.environment }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* The argument: (list . more), where `more` is a list of further sources, which have precedence. */}}
{{- define "streams.objectStoreSecret" -}}
{{- $sources := list -}}
{{- with (index . 0).Values.objectStore.secret -}}
{{- $sources = append $sources (dict "secretRef" (dict "name" .)) -}}
{{- end -}}
{{- with concat $sources (index . 1) }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where pods may run: the argument is the part of the values that says so. */}}
{{- define "streams.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Name of the objects of a sink: (list . sink). Names of sinks may have what names of objects may not. */}}
{{- define "streams.sink" -}}
{{- printf "%s-sink-%s" (include "streams.name" (index . 0)) ((index . 1).name | lower | replace "_" "-") | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What ScaledObjects that ask the monitor have in common: (list . limits). */}}
{{- define "streams.scaled" -}}
pollingInterval: {{ (index . 0).Values.autoscaling.pollingSeconds }}
minReplicaCount: {{ (index . 1).replicasMin | default 1 }}
maxReplicaCount: {{ (index . 1).replicasMax }}
advanced:
  horizontalPodAutoscalerConfig:
    behavior:
      # The monitor keeps the cool-down.
      scaleDown:
        stabilizationWindowSeconds: 0
      scaleUp:
        stabilizationWindowSeconds: 0
{{- end -}}

{{/* A trigger of KEDA by the lag of a consumer group: (list . group). */}}
{{- define "streams.trigger" -}}
- type: metrics-api
  metricType: AverageValue
  metadata:
    url: http://{{ include "streams.name" (index . 0) }}-monitor.{{ (index . 0).Release.Namespace }}:8080/scale/{{ index . 1 }}
    valueLocation: replicas
    targetValue: "1"
{{- end -}}
