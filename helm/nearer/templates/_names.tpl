{{- /*
The names of all objects, in one place.

Job, ConfigMap, Service and NetworkPolicy of a run share one name: the release's, and a hash of all that Kubernetes will
not let anybody change in a Job (its pod template and the like), of the settings, of the queue, and of the release's name. So
other settings are other objects, the same settings are the same objects, and no upgrade ever patches an immutable field. The
hash is taken of the rendered Job (read again, so comments do not count) with its name left out; a newer chart that
renders another pod is another run.

Lengths: 42 + "-" + 10 = 53 characters (54 with the "n"), so that the host name `<job>-<index>` stays within 63, and so
does the pod's name `<job>-<index>-<5 random>`.
*/ -}}

{{- /* The release's name as a DNS label: no dots, and a letter first, which Services ask for. */ -}}
{{- define "nearer.names.base" -}}
{{- $name := .Release.Name | replace "." "-" -}}
{{- regexMatch "^[0-9]" $name | ternary (printf "n%s" $name) $name | trunc 42 | trimSuffix "-" -}}
{{- end -}}

{{- define "nearer.names.hash" -}}
{{- $job := include "nearer.job.fixed" (dict "root" . "name" "") | fromYaml -}}
{{- list .Release.Name .Values.queue $job (include "nearer.settings" .) | toJson | sha256sum | trunc 10 -}}
{{- end -}}

{{- define "nearer.names.run" -}}
{{- printf "%s-%s" (include "nearer.names.base" .) (include "nearer.names.hash" .) -}}
{{- end -}}

{{- /* The service account keeps its name over all runs of a release: cloud roles trust it by name. */ -}}
{{- define "nearer.names.serviceAccount" -}}
{{- $own := .Values.serviceAccount -}}
{{- if $own.create -}}
{{- $own.name | default (include "nearer.names.base" .) -}}
{{- else -}}
{{- $own.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- /* What a Service, a NetworkPolicy and a spread constraint find the pods of one run by. */ -}}
{{- define "nearer.labels.pods" -}}
app.kubernetes.io/name: nearer
app.kubernetes.io/instance: {{ .root.Release.Name }}
nearer/run: {{ .name | quote }}
{{- end -}}

{{- /* On every object. */ -}}
{{- define "nearer.labels.objects" -}}
{{ include "nearer.labels.pods" (dict "root" . "name" (include "nearer.names.run" .)) }}
app.kubernetes.io/component: {{ .Values.command | replace " " "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}
