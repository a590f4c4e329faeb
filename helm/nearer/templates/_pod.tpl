{{- /*
The pod: one container that runs one nearer command. It satisfies Pod Security `restricted` (unless pod.hostNetwork is
set), and can write to four places only: /tmp, /work, /cache and /dev/shm.
*/ -}}
{{- define "nearer.pod" -}}
{{- $values := .root.Values -}}
{{- $pod := $values.pod -}}
restartPolicy: Never # a failure policy asks for it: the Job makes a new pod instead
serviceAccountName: {{ include "nearer.names.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ int64 $values.terminationGraceSeconds }}
{{- if gt (int $values.nodes) 1 }}
subdomain: {{ .name | quote }}
{{- end }}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $pod.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml . | nindent 4 }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels:
        {{- include "nearer.labels.pods" $ | nindent 8 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- with $pod.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $pod.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with $pod.user }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  fsGroup: {{ int64 . }}
  fsGroupChangePolicy: OnRootMismatch # a cache of many files would take minutes at every start
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
containers:
  - name: nearer
    image: {{ include "nearer.image" .root | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args:
      {{- range splitList " " $values.command }}
      - {{ . | quote }}
      {{- end }}
      - -c
      - /etc/nearer/settings.yaml
    workingDir: /work
    {{- with $values.secrets.envFrom }}
    envFrom:
      {{- range . }}
      - secretRef: {name: {{ . }}}
      {{- end }}
    {{- end }}
    env:
      {{- include "nearer.env" . | trim | nindent 6 }}
    resources:
      {{- include "nearer.resources" .root | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
      privileged: false
      readOnlyRootFilesystem: true
      runAsNonRoot: true
    terminationMessagePath: /dev/termination-log
    terminationMessagePolicy: FallbackToLogsOnError # nearer leaves a JSON; a process that was killed leaves its last lines
    volumeMounts:
      - {name: settings, mountPath: /etc/nearer, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      - {name: work, mountPath: /work}
      - {name: cache, mountPath: /cache}
      - {name: shm, mountPath: /dev/shm}
      {{- with $pod.volumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: settings
    configMap: {name: {{ .name | quote }}}
  - name: tmp
    emptyDir: {sizeLimit: {{ $values.storage.tmp.gibibytes }}Gi}
  {{- range $name := list "work" "cache" }}
  {{- $own := get $values.storage $name }}
  - name: {{ $name }}
    {{- if $own.claim }}
    persistentVolumeClaim: {claimName: {{ $own.claim }}}
    {{- else }}
    emptyDir: {sizeLimit: {{ $own.gibibytes }}Gi}
    {{- end }}
  {{- end }}
  - name: shm # workers hand over tensors here; it counts as the container's memory
    emptyDir: {medium: Memory, sizeLimit: {{ $values.storage.sharedMemory.gibibytes }}Gi}
  {{- with $pod.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "nearer.image" -}}
{{- $own := .Values.image -}}
{{- if $own.digest -}}
{{ $own.repository }}@{{ $own.digest }}
{{- else -}}
{{ $own.repository }}:{{ $own.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}
