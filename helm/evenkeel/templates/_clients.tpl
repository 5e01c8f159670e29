{{/* Pods that call coordinators: the job that submits sweeps, and the test. */}}

{{/* list root container-name script resources mounts. Everything but volumes. */}}
{{- define "evenkeel.clientContainer" -}}
{{- $root := index . 0 -}}
name: {{ index . 1 }}
image: {{ include "evenkeel.image" (list $root $root.Values.coordinator.image "") }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command: [/bin/sh, -eu, -c]
args:
  - |
    {{- index . 2 | nindent 4 }}
env:
  {{- include "evenkeel.podEnv" $root | nindent 2 }}
  {{- include "evenkeel.clientEnv" $root | nindent 2 }}
resources:
  {{- toYaml (index . 3) | nindent 2 }}
securityContext:
  {{- include "evenkeel.containerSecurity" $root | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: specs, mountPath: /etc/evenkeel/specs, readOnly: true}
  {{- with include "evenkeel.keyMounts" (list $root "client") | trim }}{{ . | nindent 2 }}{{ end }}
  {{- with include "evenkeel.tokenMount" $root | trim }}{{ . | nindent 2 }}{{ end }}
  {{- with index . 4 }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "evenkeel.clientVolumes" -}}
{{- include "evenkeel.scratch" "256Mi" }}
{{- include "evenkeel.keyVolumes" (list . "client") }}
{{- include "evenkeel.tokenVolume" (list . "submit") }}
{{- end -}}

{{/* The pod of the job. */}}
{{- define "evenkeel.sweepsPod" -}}
{{- $it := .Values.sweeps -}}
metadata:
  labels:
    {{- include "evenkeel.podLabels" (list . "client") | nindent 4 }}
spec:
  {{- with include "evenkeel.pullSecrets" . | trim }}{{ . | nindent 2 }}{{ end }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: Never
  securityContext:
    {{- include "evenkeel.podSecurity" . | nindent 4 }}
  containers:
    {{- $script := `# A sweep's id is made of what is in its spec: one that is known already is not submitted again.
for spec in /etc/evenkeel/specs/*; do
  echo "submitting $spec"
  evenkeel submit "$spec"
done` }}
    - {{- include "evenkeel.clientContainer" (list . "submit" $script $it.resources $it.extraVolumeMounts) | nindent 6 }}
  volumes:
    {{- with include "evenkeel.clientVolumes" . | trim }}{{ . | nindent 4 }}{{ end }}
    - name: specs
      projected:
        sources:
          {{- if $it.specs }}
          - configMap: {name: {{ include "evenkeel.fullname" . }}-sweeps}
          {{- end }}
          {{- range $it.configMaps }}
          - configMap: {name: {{ . }}}
          {{- end }}
    {{- with $it.extraVolumes }}
    {{- tpl (toYaml .) $ | nindent 4 }}
    {{- end }}
{{- end -}}
