{{- define "tellwire.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tellwire.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "tellwire.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tellwire.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tellwire.selector" -}}
app.kubernetes.io/name: {{ include "tellwire.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tellwire.labels" -}}
{{ include "tellwire.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "tellwire.image" -}}
{{- with .Values.image }}
{{- $name := .repository }}
{{- if .registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .registry) .repository }}{{ end }}
{{- if .digest }}{{ printf "%s@%s" $name .digest }}
{{- else }}{{ printf "%s:%s" $name (.tag | default $.Chart.AppVersion) }}{{ end }}
{{- end }}
{{- end }}

{{- define "tellwire.relabelings" -}}
# The agent's pod has another name at each start; the node has not.
- sourceLabels:
    - __meta_kubernetes_pod_node_name
  targetLabel: node
- sourceLabels:
    - __meta_kubernetes_pod_node_name
  targetLabel: instance
{{- with .Values.cluster }}
- targetLabel: cluster
  replacement: {{ . }}
{{- end }}
{{- end }}

{{- define "tellwire.access" -}}
{{- with .Values.http.tls }}
{{- if .secretName }}
scheme: https
tlsConfig:
  {{- if .serverName }}
  serverName: {{ .serverName }}
  ca:
    secret:
      name: {{ .secretName }}
      key: ca.crt
  {{- else }}
  insecureSkipVerify: true
  {{- end }}
{{- end }}
{{- end }}
{{- with .Values.http.token }}
{{- if .secretName }}
authorization:
  credentials:
    name: {{ .secretName }}
    key: {{ .key }}
{{- end }}
{{- end }}
{{- end }}
