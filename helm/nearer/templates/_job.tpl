{{- /*
What cannot be changed in a Job once it is there: how many pods, what a pod's end means, and the pod itself. Takes the
whole context as `root`, and the run's name, which is "" while the hash for that very name is taken.

The failure policy is nearer's exit-code table (src/nearer/errors.py); a test compares the two. The first rule that
matches wins, so an eviction is ignored whatever code the killed process had. What no rule names (1, 69, 130, 137, …)
counts against the backoff limit.
*/ -}}
{{- define "nearer.job.fixed" -}}
{{- $values := .root.Values -}}
{{- $nodes := int $values.nodes -}}
completions: {{ $nodes }}
parallelism: {{ $nodes }}
{{- if gt $nodes 1 }}
completionMode: Indexed
backoffLimitPerIndex: {{ int $values.backoffLimit }}
maxFailedIndexes: 0 # training needs all of them: one index given up is the run given up
{{- else }}
completionMode: NonIndexed
{{- end }}
podReplacementPolicy: Failed # the next pod starts when the last one is gone: two would share a checkpoint
podFailurePolicy:
  rules:
    - action: Ignore # evicted, preempted, drained: no fault of the run
      onPodConditions:
        - {type: DisruptionTarget, status: "True"}
    - action: FailJob # wrong settings or input, a gate that refused, does not fit: the same again another time
      onExitCodes: {containerName: nearer, operator: In, values: [2, 3, 4]}
    - action: Ignore # temporary, and the last checkpoint stands; activeDeadlineSeconds ends it
      onExitCodes: {containerName: nearer, operator: In, values: [75]}
template:
  metadata:
    labels:
      {{- include "nearer.labels.pods" . | nindent 6 }}
      {{- with $values.pod.labels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $values.pod.annotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    {{- include "nearer.pod" . | nindent 4 }}
{{- end -}}
