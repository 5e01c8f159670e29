{{/* The tokens of the chart's own Secret by role, as JSON: those that are there already, or new ones. They are drawn once for
all templates. */}}
{{- define "evenkeel.tokens" -}}
{{- if not (hasKey .Values.auth "drawn") -}}
{{- $there := default (dict) (default (dict) (lookup "v1" "Secret" .Release.Namespace (include "evenkeel.tokensSecret" .))).data -}}
{{- $tokens := dict -}}
{{- range $role := list "admin" "submit" "read" "worker" -}}
{{- $_ := set $tokens $role (default (randAlphaNum 40) (get $there $role | b64dec)) -}}
{{- end -}}
{{- $_ := set .Values.auth "drawn" $tokens -}}
{{- end -}}
{{- toJson .Values.auth.drawn -}}
{{- end -}}
