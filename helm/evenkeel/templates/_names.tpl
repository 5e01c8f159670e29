{{/* Names, labels and images. */}}

{{- define "evenkeel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What every object's name begins with: at most 30 characters, so that nothing made of it passes 63. */}}
{{- define "evenkeel.fullname" -}}
{{- $name := include "evenkeel.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 30 | trimSuffix "-" -}}
{{- end -}}

{{- define "evenkeel.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that select: list root component. They never change. */}}
{{- define "evenkeel.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "evenkeel.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of an object: list root component. */}}
{{- define "evenkeel.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ include "evenkeel.chart" $root }}
{{ include "evenkeel.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: evenkeel
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods: list root component. Without the versions of the chart: those alone are no reason to start a pod anew. */}}
{{- define "evenkeel.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "evenkeel.selector" . }}
app.kubernetes.io/part-of: evenkeel
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of an object: list root component name [annotations [labels]]. */}}
{{- define "evenkeel.metadata" -}}
{{- $root := index . 0 -}}
{{- $annotations := deepCopy $root.Values.commonAnnotations -}}
{{- if gt (len .) 3 }}{{ $annotations = mergeOverwrite $annotations (deepCopy (index . 3)) }}{{ end -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "evenkeel.labels" (list $root (index . 1)) | nindent 2 }}
  {{- if gt (len .) 4 }}{{ with index . 4 }}{{ toYaml . | nindent 2 }}{{ end }}{{ end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image: list root image [suffix of the tag]. A digest wins over a tag. */}}
{{- define "evenkeel.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- with coalesce $root.Values.global.imageRegistry $image.registry $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}
{{- else }}:{{ default (printf "%s%s" $root.Chart.AppVersion (index . 2)) $image.tag }}{{ end -}}
{{- end -}}

{{- define "evenkeel.pullSecrets" -}}
{{- with concat (default (list) .Values.global.imagePullSecrets) .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The host of a Service: list root name. */}}
{{- define "evenkeel.host" -}}
{{- $root := index . 0 -}}
{{- printf "%s.%s.svc.%s" (index . 1) $root.Release.Namespace $root.Values.clusterDomain -}}
{{- end -}}

{{- define "evenkeel.scheme" -}}{{ ternary "http" "https" (eq .Values.tls.mode "none") }}{{- end -}}

{{/* Where clients inside the cluster reach the coordinators. */}}
{{- define "evenkeel.endpoint" -}}
{{- printf "%s://%s:%v" (include "evenkeel.scheme" .) (include "evenkeel.host" (list . (include "evenkeel.fullname" .))) .Values.coordinator.service.grpcPort -}}
{{- end -}}

{{/* Whether there is an etcd, whosever it is. */}}
{{- define "evenkeel.hasEtcd" -}}
{{- if or .Values.etcd.enabled .Values.etcd.endpoints }}true{{ end -}}
{{- end -}}

{{/* Addresses of etcd, separated by commas. */}}
{{- define "evenkeel.etcdEndpoints" -}}
{{- if .Values.etcd.enabled -}}
{{- $root := . -}}{{- $name := printf "%s-etcd" (include "evenkeel.fullname" .) -}}{{- $all := list -}}
{{- range until (int .Values.etcd.replicas) -}}
{{- $all = append $all (printf "%s://%s-%d.%s:2379" (include "evenkeel.scheme" $root) $name . (include "evenkeel.host" (list $root $name))) -}}
{{- end -}}
{{- join "," $all -}}
{{- else -}}
{{- join "," .Values.etcd.endpoints -}}
{{- end -}}
{{- end -}}

{{/* How many coordinators: what is asked for, or two where two can take turns. */}}
{{- define "evenkeel.coordinators" -}}
{{- if kindIs "invalid" .Values.coordinator.replicas -}}
{{- ternary 2 1 (and (ne (include "evenkeel.hasEtcd" .) "") (ne .Values.store.url "")) -}}
{{- else -}}
{{- .Values.coordinator.replicas -}}
{{- end -}}
{{- end -}}

{{- define "evenkeel.serviceAccount" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}{{- $account := index . 2 -}}
{{- if $account.create -}}
{{- default (printf "%s-%s" (include "evenkeel.fullname" $root) $component) $account.name -}}
{{- else -}}
{{- default "default" $account.name -}}
{{- end -}}
{{- end -}}

{{/* Secrets that are made or named. */}}
{{- define "evenkeel.tokensSecret" -}}
{{- default (printf "%s-tokens" (include "evenkeel.fullname" .)) .Values.auth.existingSecret -}}
{{- end -}}

{{/* The Secret with the certificate of a component: list root component. */}}
{{- define "evenkeel.tlsSecret" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- if eq $root.Values.tls.mode "secrets" -}}
{{- required (printf "tls.mode is `secrets`: name the Secret with the certificate of %s in tls.secrets.%s (keys ca.crt, tls.crt, tls.key)" $component $component) (get $root.Values.tls.secrets $component) -}}
{{- else -}}
{{- printf "%s-%s-tls" (include "evenkeel.fullname" $root) $component -}}
{{- end -}}
{{- end -}}
