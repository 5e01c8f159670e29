{{/* Pools of workers. */}}

{{/* A pool with everything it does not say itself, as YAML: list root name settings. */}}
{{- define "evenkeel.pool" -}}
{{- $root := index . 0 -}}
{{- toYaml (mergeOverwrite (deepCopy $root.Values.workerDefaults) (deepCopy (index . 2))) -}}
{{- end -}}

{{- define "evenkeel.poolName" -}}
{{- $name := printf "%s-worker-%s" (include "evenkeel.fullname" (index . 0)) (index . 1) -}}
{{- if gt (len $name) 52 }}{{ fail (printf "workers.%s: the name %s has %d characters, and 52 is what leaves room for the names of pods; shorten the pool's name or set fullnameOverride" (index . 1) $name (len $name)) }}{{ end -}}
{{- $name -}}
{{- end -}}

{{/* Labels that select the workers of a pool: list root name. */}}
{{- define "evenkeel.poolSelector" -}}
{{- include "evenkeel.selector" (list (index . 0) "worker") }}
evenkeel/pool: {{ index . 1 }}
{{- end -}}

{{/* The pod of a worker: list root name pool address. The address is the pod's own, as coordinators reach it. */}}
{{- define "evenkeel.workerPod" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $pool := index . 2 -}}{{- $host := index . 3 -}}
{{- $fullname := include "evenkeel.fullname" $root -}}
{{- $keda := eq $pool.autoscaling.engine "keda" -}}
metadata:
  labels:
    {{- include "evenkeel.podLabels" (list $root "worker") | nindent 4 }}
    evenkeel/pool: {{ $name }}
    {{- with $pool.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: worker
    {{- if $keda }}
    # A budget does not hold for the pods of jobs; this keeps the cluster's autoscaler off them.
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
    karpenter.sh/do-not-disrupt: "true"
    {{- end }}
    {{- if and (not (include "evenkeel.hasEtcd" $root)) $root.Values.auth.enabled (not $root.Values.auth.existingSecret) }}
    # The one thing that a worker reads once and that is not in here: another token is a reason to start anew.
    checksum/token: {{ get (include "evenkeel.tokens" $root | fromJson) "worker" | sha256sum }}
    {{- end }}
    {{- with mergeOverwrite (deepCopy $root.Values.commonAnnotations) $pool.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- with include "evenkeel.pullSecrets" $root | trim }}{{ . | nindent 2 }}{{ end }}
  serviceAccountName: {{ include "evenkeel.serviceAccount" (list $root "worker" $root.Values.workerServiceAccount) }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $pool.terminationGracePeriodSeconds }}
  {{- if $keda }}
  subdomain: {{ $fullname }}-worker
  restartPolicy: OnFailure
  {{- end }}
  securityContext:
    {{- include "evenkeel.podSecurity" $root | nindent 4 }}
  {{- with include "evenkeel.placement" (list $root $pool (include "evenkeel.poolSelector" (list $root $name))) | trim }}{{ . | nindent 2 }}{{ end }}
  {{- with $pool.initContainers }}
  initContainers:
    {{- tpl (toYaml .) $root | nindent 4 }}
  {{- end }}
  containers:
    - name: worker
      image: {{ include "evenkeel.image" (list $root $pool.image (ternary "-cuda" "" $pool.gpu.enabled)) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      {{- with $pool.extraArgs }}
      args:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      env:
        {{- include "evenkeel.podEnv" $root | nindent 8 }}
        {{- if $keda }}
        - name: JOB_NAME
          valueFrom: {fieldRef: {fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}}
        - name: EVENKEEL_EXIT_WHEN_IDLE
          value: {{ $pool.autoscaling.keda.idleAfter | quote }}
        {{- end }}
        - name: EVENKEEL_NAME
          value: $(POD_NAME)
        - name: EVENKEEL_ADVERTISE
          value: {{ include "evenkeel.scheme" $root }}://{{ $host }}.{{ include "evenkeel.host" (list $root (printf "%s-worker" $fullname)) }}:7071
        {{- if include "evenkeel.hasEtcd" $root }}
        - name: EVENKEEL_CLUSTER
          value: {{ default $fullname $root.Values.cluster }}
        {{- with include "evenkeel.etcdEnv" $root | trim }}{{ . | nindent 8 }}{{ end }}
        {{- else }}
        - name: EVENKEEL_COORDINATOR
          value: {{ include "evenkeel.endpoint" $root | quote }}
        {{- with include "evenkeel.tokenEnv" $root | trim }}{{ . | nindent 8 }}{{ end }}
        {{- end }}
        - name: EVENKEEL_DEVICE
          value: {{ ternary "cuda:0" "cpu" $pool.gpu.enabled | quote }}
        - name: EVENKEEL_SLOTS
          value: {{ $pool.slots | quote }}
        # Shorter than the pod's: what it hands over has to arrive, too.
        - name: EVENKEEL_GRACE
          value: {{ max 1 (sub (int $pool.terminationGracePeriodSeconds) 10) | quote }}
        - name: EVENKEEL_CACHE_DIR
          value: /tmp/evenkeel
        {{- if and $root.Values.store.url $root.Values.store.checkpoints }}
        {{- with include "evenkeel.storeEnv" $root | trim }}{{ . | nindent 8 }}{{ end }}
        - name: EVENKEEL_CHECKPOINT_EVERY
          value: {{ $pool.checkpointEvery | quote }}
        {{- end }}
        {{- with include "evenkeel.tlsEnv" $root | trim }}{{ . | nindent 8 }}{{ end }}
        {{- with include "evenkeel.telemetryEnv" $root | trim }}{{ . | nindent 8 }}{{ end }}
        {{- with $pool.extraEnv }}
        {{- tpl (toYaml .) $root | nindent 8 }}
        {{- end }}
      {{- $from := "" }}
      {{- if $root.Values.store.checkpoints }}{{ $from = include "evenkeel.storeEnvFrom" $root }}{{ end }}
      {{- if or $from $pool.extraEnvFrom }}
      envFrom:
        {{- with $from | trim }}{{ . | nindent 8 }}{{ end }}
        {{- with $pool.extraEnvFrom }}
        {{- tpl (toYaml .) $root | nindent 8 }}
        {{- end }}
      {{- end }}
      ports:
        - {name: grpc, containerPort: 7071, protocol: TCP}
        - {name: http, containerPort: 7081, protocol: TCP}
      # Loading libtorch and waking a GPU takes its time once.
      startupProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 2
        failureThreshold: 150
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
      livenessProbe:
        {{- include "evenkeel.probe" (list $root "" 7071 "/healthz") | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      {{- with $pool.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- $resources := deepCopy $pool.resources }}
      {{- if $pool.gpu.enabled }}
      {{- $resources = mergeOverwrite $resources (dict "limits" (dict $pool.gpu.resource 1) "requests" (dict $pool.gpu.resource 1)) }}
      {{- end }}
      resources:
        {{- toYaml $resources | nindent 8 }}
      securityContext:
        {{- include "evenkeel.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- with include "evenkeel.keyMounts" (list $root "worker") | trim }}{{ . | nindent 8 }}{{ end }}
        {{- if not (include "evenkeel.hasEtcd" $root) }}
        {{- with include "evenkeel.tokenMount" $root | trim }}{{ . | nindent 8 }}{{ end }}
        {{- end }}
        {{- with $pool.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $pool.extraContainers }}
    {{- tpl (toYaml .) $root | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "evenkeel.scratch" $pool.cache.sizeLimit | nindent 4 }}
    {{- with include "evenkeel.keyVolumes" (list $root "worker") | trim }}{{ . | nindent 4 }}{{ end }}
    {{- if not (include "evenkeel.hasEtcd" $root) }}
    {{- with include "evenkeel.tokenVolume" (list $root "worker") | trim }}{{ . | nindent 4 }}{{ end }}
    {{- end }}
    {{- with $pool.extraVolumes }}
    {{- tpl (toYaml .) $root | nindent 4 }}
    {{- end }}
{{- end -}}
