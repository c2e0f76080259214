{{- define "acclimate.name" -}}
{{- if contains "acclimate" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-acclimate{{ end -}}
{{- end }}

{{- define "acclimate.selector" -}}
app.kubernetes.io/name: acclimate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "acclimate.labels" -}}
{{ include "acclimate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "acclimate.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Of every pod: no rights, no token, no root. */}}
{{- define "acclimate.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: data
    emptyDir: {sizeLimit: 64Mi}
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: 64Mi}
  {{- with .Values.workflowsConfigMap }}
  - name: workflows
    configMap: {name: {{ . }}}
  {{- end }}
  {{- with .Values.pinsConfigMap }}
  - name: pins
    configMap: {name: {{ . }}}
  {{- end }}
  {{- with .Values.policiesVolume }}
  - name: policies
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Of every container. */}}
{{- define "acclimate.container" -}}
image: {{ include "acclimate.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - {name: data, mountPath: /var/lib/acclimate}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.workflowsConfigMap }}
  - {name: workflows, mountPath: /etc/acclimate/workflows, readOnly: true}
  {{- end }}
  {{- if .Values.pinsConfigMap }}
  - {name: pins, mountPath: /etc/acclimate/pins, readOnly: true}
  {{- end }}
  {{- if .Values.policiesVolume }}
  - {name: policies, mountPath: /etc/acclimate/policies, readOnly: true}
  {{- end }}
{{- end }}

{{- define "acclimate.env" -}}
- {name: ACCLIMATE_DATA_DIR, value: /var/lib/acclimate}
- {name: ACCLIMATE_WORKFLOWS, value: /etc/acclimate/workflows}
- {name: ACCLIMATE_POLICIES, value: /etc/acclimate/policies}
{{- if .Values.pinsConfigMap }}
- {name: ACCLIMATE_POLICY_PINS, value: /etc/acclimate/pins/pins}
{{- end }}
- {name: ACCLIMATE_MIGRATIONS, value: {{ ternary "wait" "start" .Values.migrations.job }}}
- {name: ACCLIMATE_JOBS, value: {{ ternary "workers" "here" .Values.workers.enabled }}}
{{- range $name, $value := .Values.settings }}
- {name: ACCLIMATE_{{ upper $name }}, value: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ $value | toJson | quote }}{{ end }}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- $secret := required "secret.name: expected the Secret with ledger-url, redis-url and installation-key" .Values.secret.name }}
- name: ACCLIMATE_LEDGER_URL
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: ledger-url}}
- name: ACCLIMATE_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: redis-url}}
{{- if .Values.workers.enabled }}
- name: ACCLIMATE_BROKER_URL
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: broker-url}}
{{- end }}
- name: ACCLIMATE_INSTALLATION_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: installation-key}}
{{- end }}
