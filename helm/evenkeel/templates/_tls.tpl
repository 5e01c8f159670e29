{{/* Who gets a certificate: a list of components. */}}
{{- define "evenkeel.tlsComponents" -}}
{{- concat (list "coordinator" "worker" "client") (ternary (list "etcd") (list) .Values.etcd.enabled) | toJson -}}
{{- end -}}

{{/* The names of a component's certificate, as a JSON list: list root component. */}}
{{- define "evenkeel.tlsNames" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $fullname := include "evenkeel.fullname" $root -}}
{{- $service := printf "%s-%s" $fullname $component -}}
{{- $hosts := list "localhost" -}}
{{- range list $service (ternary $fullname $service (eq $component "coordinator")) -}}
{{- $hosts = concat $hosts (list . (printf "%s.%s" . $root.Release.Namespace) (printf "%s.%s.svc" . $root.Release.Namespace) (include "evenkeel.host" (list $root .))) -}}
{{- end -}}
{{- $hosts = append $hosts (printf "*.%s" (include "evenkeel.host" (list $root $service))) -}}
{{- if eq $component "coordinator" -}}
{{- $hosts = concat (list "evenkeel-coordinator") $hosts $root.Values.tls.extraNames -}}
{{- end -}}
{{- if eq $component "client" }}{{ $hosts = list "evenkeel-client" }}{{ end -}}
{{- $hosts | uniq | toJson -}}
{{- end -}}
