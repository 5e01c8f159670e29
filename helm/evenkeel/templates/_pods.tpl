{{/* What pods have in common. */}}

{{- define "evenkeel.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Security of a pod: nobody's user, whose group owns what is mounted. */}}
{{- define "evenkeel.podSecurity" -}}
{{- toYaml .Values.podSecurityContext -}}
{{- end -}}

{{/* Name, place and addresses of the pod. */}}
{{- define "evenkeel.podEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end -}}

{{/* Logs and OpenTelemetry. */}}
{{- define "evenkeel.telemetryEnv" -}}
{{- $root := . -}}
- name: RUST_LOG
  value: {{ $root.Values.logLevel | quote }}
- name: EVENKEEL_LOG_FORMAT
  value: {{ $root.Values.logFormat }}
{{- with $root.Values.telemetry.otlp }}
{{- if .endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ tpl .endpoint $root | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .protocol }}
{{- range $signal := list "traces" "metrics" "logs" }}
- name: OTEL_{{ upper $signal }}_EXPORTER
  value: {{ ternary "otlp" "none" (get $root.Values.telemetry.otlp $signal) }}
{{- end }}
{{- with .headersSecret }}
{{- if .name }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
{{- end }}
{{- end }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ include "evenkeel.resourceAttributes" $root | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "evenkeel.resourceAttributes" -}}
k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID),k8s.node.name=$(NODE_NAME)
{{- range $key, $value := .Values.telemetry.otlp.resourceAttributes }},{{ $key }}={{ $value }}{{ end -}}
{{- end -}}

{{/* How etcd is reached, where there is one. */}}
{{- define "evenkeel.etcdEnv" -}}
{{- if include "evenkeel.hasEtcd" . }}
- name: EVENKEEL_ETCD
  value: {{ include "evenkeel.etcdEndpoints" . | quote }}
{{- if or .Values.etcd.tls.existingSecret (and .Values.etcd.enabled (ne .Values.tls.mode "none")) }}
- name: EVENKEEL_ETCD_CA
  value: /etc/evenkeel/etcd-tls/ca.crt
- name: EVENKEEL_ETCD_CERT
  value: /etc/evenkeel/etcd-tls/tls.crt
- name: EVENKEEL_ETCD_KEY
  value: /etc/evenkeel/etcd-tls/tls.key
{{- end }}
{{- if .Values.etcd.auth.existingSecret }}
- name: EVENKEEL_ETCD_USER
  value: {{ .Values.etcd.auth.user | quote }}
- name: EVENKEEL_ETCD_PASSWORD_FILE
  value: /etc/evenkeel/etcd-auth/password
{{- end }}
{{- end }}
{{- end -}}

{{/* The store: its URL and what opens it. */}}
{{- define "evenkeel.storeEnv" -}}
{{- if .Values.store.url }}
- name: EVENKEEL_STORE
  value: {{ .Values.store.url | quote }}
{{- range $name, $value := .Values.store.env }}
- name: {{ $name }}
  value: {{ tpl (toString $value) $ | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "evenkeel.storeEnvFrom" -}}
{{- if and .Values.store.url .Values.store.existingSecret }}
- secretRef: {name: {{ .Values.store.existingSecret }}}
{{- end }}
{{- end -}}

{{/* A program's own certificate. */}}
{{- define "evenkeel.tlsEnv" -}}
{{- if ne .Values.tls.mode "none" }}
- name: EVENKEEL_TLS_CA
  value: /etc/evenkeel/tls/ca.crt
- name: EVENKEEL_TLS_CERT
  value: /etc/evenkeel/tls/tls.crt
- name: EVENKEEL_TLS_KEY
  value: /etc/evenkeel/tls/tls.key
{{- end }}
{{- end -}}

{{/* Mounts of keys: list root component. The volumes are below. */}}
{{- define "evenkeel.keyMounts" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- if ne $root.Values.tls.mode "none" }}
- {name: tls, mountPath: /etc/evenkeel/tls, readOnly: true}
{{- end }}
{{- if ne $component "client" }}
{{- if include "evenkeel.etcdTlsSecret" . }}
- {name: etcd-tls, mountPath: /etc/evenkeel/etcd-tls, readOnly: true}
{{- end }}
{{- if and (include "evenkeel.hasEtcd" $root) $root.Values.etcd.auth.existingSecret }}
- {name: etcd-auth, mountPath: /etc/evenkeel/etcd-auth, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* What to show to etcd: the Secret that is named, or one's own certificate where the chart runs etcd with TLS. */}}
{{- define "evenkeel.etcdTlsSecret" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.etcd.enabled -}}
{{- if ne $root.Values.tls.mode "none" }}{{ include "evenkeel.tlsSecret" . }}{{ end -}}
{{- else if $root.Values.etcd.endpoints -}}
{{- $root.Values.etcd.tls.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "evenkeel.keyVolumes" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- if ne $root.Values.tls.mode "none" }}
- name: tls
  secret: {secretName: {{ include "evenkeel.tlsSecret" . }}, defaultMode: 0440}
{{- end }}
{{- if ne $component "client" }}
{{- with include "evenkeel.etcdTlsSecret" . }}
- name: etcd-tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- if and (include "evenkeel.hasEtcd" $root) $root.Values.etcd.auth.existingSecret }}
- name: etcd-auth
  secret:
    secretName: {{ $root.Values.etcd.auth.existingSecret }}
    defaultMode: 0440
    items: [{key: {{ $root.Values.etcd.auth.passwordKey }}, path: password}]
{{- end }}
{{- end }}
{{- end -}}

{{/* A token of one role: list root role. Its file is what EVENKEEL_TOKEN_FILE names. */}}
{{- define "evenkeel.tokenVolume" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.auth.enabled }}
- name: token
  secret:
    secretName: {{ include "evenkeel.tokensSecret" $root }}
    defaultMode: 0440
    items: [{key: {{ index . 1 }}, path: token}]
{{- end }}
{{- end -}}

{{- define "evenkeel.tokenMount" -}}
{{- if .Values.auth.enabled }}
- {name: token, mountPath: /etc/evenkeel/token, readOnly: true}
{{- end }}
{{- end -}}

{{- define "evenkeel.tokenEnv" -}}
{{- if .Values.auth.enabled }}
- name: EVENKEEL_TOKEN_FILE
  value: /etc/evenkeel/token/token
{{- end }}
{{- end -}}

{{/* How a client pod reaches the coordinators. */}}
{{- define "evenkeel.clientEnv" -}}
- name: EVENKEEL_ENDPOINT
  value: {{ include "evenkeel.endpoint" . | quote }}
{{- include "evenkeel.tokenEnv" . }}
{{- include "evenkeel.tlsEnv" . }}
{{- end -}}

{{/* What a probe asks: list root service port of gRPC, path and port of HTTP. The kubelet asks by gRPC only what is not
encrypted. */}}
{{- define "evenkeel.probe" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.tls.mode "none" -}}
grpc:
  port: {{ index . 2 }}
  {{- with index . 1 }}
  service: {{ . }}
  {{- end }}
{{- else -}}
httpGet: {path: {{ index . 3 }}, port: http}
{{- end -}}
{{- end -}}

{{/* Where pods go: list root settings labels-that-select. */}}
{{- define "evenkeel.placement" -}}
{{- $root := index . 0 -}}{{- $it := index . 1 -}}
{{- with $it.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $it.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $it.affinity }}
affinity:
  {{- tpl (toYaml .) $root | nindent 2 }}
{{- end }}
{{- with $it.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $it.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with $it.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- if $it.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range $it.topologySpread.topologyKeys }}
  - maxSkew: {{ $it.topologySpread.maxSkew }}
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $it.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- index $ 2 | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A directory in memory or on the node for what programs write beside their data. */}}
{{- define "evenkeel.scratch" -}}
- name: tmp
  emptyDir: {sizeLimit: {{ . }}}
{{- end -}}
