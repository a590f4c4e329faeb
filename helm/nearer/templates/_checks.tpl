{{- /*
What the schema cannot say, refused with words and all at once, before anything is created.
*/ -}}
{{- define "nearer.checks" -}}
{{- $said := list -}}
{{- $values := .Values -}}
{{- if not $values.command -}}
{{- $said = append $said "command is empty: name a job file (-f jobs/train-reranker.yaml), or set it to one of nearer's commands" -}}
{{- end -}}
{{- range $where, $address := fromJson (include "nearer.outputs" .) -}}
{{- if ne (include "nearer.lasts" (dict "root" $ "address" $address)) "true" -}}
{{- $said = append $said (printf "settings.%s is %q, which is gone when the pod is gone: s3://bucket/prefix, a path under /work with storage.work.claim, or a path on a claim in pod.volumes" $where $address) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "//[^/\\s\"]*@" (toJson $values.settings) -}}
{{- $said = append $said "an address in settings holds a user name or a password, and settings are no secret: give it by secrets.envFrom or secrets.env" -}}
{{- end -}}
{{- range $name, $_ := $values.pod.env -}}
{{- if regexMatch "(^|_)(SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY)(_|$)" $name -}}
{{- $said = append $said (printf "pod.env.%s looks like a secret, and values are no secret: give it by secrets.env.%s: {secret: …, key: …}" $name $name) -}}
{{- end -}}
{{- if hasKey $values.secrets.env $name -}}
{{- $said = append $said (printf "%s stands in pod.env and in secrets.env: leave one of them out" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $values.secrets.env -}}
{{- if and (not (hasKey $values.pod.env $name)) (regexMatch (printf "name: %s[,\\n]" $name) (include "nearer.env.own" (dict "root" $ "name" ""))) -}}
{{- $said = append $said (printf "secrets.env.%s is a variable that the chart sets itself" $name) -}}
{{- end -}}
{{- end -}}
{{- $own := list "settings" "tmp" "work" "cache" "shm" -}}
{{- $known := $own -}}
{{- range $values.pod.volumes -}}
{{- if has .name $known }}{{ $said = append $said (printf "pod.volumes has %q, a name that is taken" .name) }}{{ end -}}
{{- $known = append $known .name -}}
{{- end -}}
{{- range $values.pod.volumeMounts -}}
{{- if not (has .name $known) }}{{ $said = append $said (printf "pod.volumeMounts names the volume %q, which is not in pod.volumes" .name) }}{{ end -}}
{{- if has (clean .mountPath) (list "/" "/etc/nearer" "/tmp" "/work" "/cache" "/dev/shm") -}}
{{- $said = append $said (printf "pod.volumeMounts has %q, where the chart mounts something itself" .mountPath) -}}
{{- end -}}
{{- end -}}
{{- $cache := dig "store" "cache_dir" "" $values.settings | default "" -}}
{{- if hasPrefix "/" $cache -}}
{{- $writable := list "/tmp" "/work" "/cache" -}}
{{- range $values.pod.volumeMounts }}{{ if not .readOnly }}{{ $writable = append $writable (clean .mountPath) }}{{ end }}{{ end -}}
{{- if ne (include "nearer.under" (dict "path" $cache "folders" $writable)) "true" -}}
{{- $said = append $said (printf "settings.store.cache_dir is %q, which cannot be written to: leave it out (the chart sets it), or name a folder under %s" $cache (join ", " $writable)) -}}
{{- end -}}
{{- end -}}
{{- include "nearer.checks.active" . -}}
{{- if $said }}{{ fail (printf "this run is refused:\n- %s\n" (join "\n- " $said)) }}{{ end -}}
{{- end -}}

{{- /* The literal addresses that are written to (all others are under `artifacts`), as {"artifacts": …, "train.reranker.output_dir": …}. */ -}}
{{- define "nearer.outputs" -}}
{{- $settings := .Values.settings -}}
{{- $found := dict "artifacts" (get $settings "artifacts" | default ".") -}}
{{- range $where := list "generate" "train.embedding" "train.reranker" "eval" "export_onnx" "reindex" -}}
{{- $section := $settings -}}
{{- range splitList "." $where }}{{ $section = get $section . | default dict }}{{ end -}}
{{- $address := get $section "output_dir" | default "" -}}
{{- if regexMatch "^(/|~/|[.]{1,2}/|[.]{1,2}$|s3://)" $address }}{{ $_ := set $found (printf "%s.output_dir" $where) $address }}{{ end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- /* "true" if what is written to the address is still there when the pod is gone. */ -}}
{{- define "nearer.lasts" -}}
{{- $values := .root.Values -}}
{{- if hasPrefix "s3://" .address -}}
true
{{- else if not (hasPrefix "~" .address) -}}
{{- $path := hasPrefix "/" .address | ternary .address (printf "/work/%s" .address) | clean -}}
{{- $kept := list -}}
{{- if $values.storage.work.claim }}{{ $kept = append $kept "/work" }}{{ end -}}
{{- range $mount := $values.pod.volumeMounts -}}
{{- range $values.pod.volumes -}}
{{- if and (eq .name $mount.name) (hasKey . "persistentVolumeClaim") }}{{ $kept = append $kept (clean $mount.mountPath) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- include "nearer.under" (dict "path" $path "folders" $kept) -}}
{{- end -}}
{{- end -}}

{{- /* "true" if the absolute path is one of the folders, or in one. */ -}}
{{- define "nearer.under" -}}
{{- $path := printf "%s/" (clean .path) -}}
{{- range .folders }}{{ if hasPrefix (printf "%s/" .) $path }}true{{ break }}{{ end }}{{ end -}}
{{- end -}}

{{- /*
A release is one run. While it is active, another one in its place would kill it: Helm deletes the old Job and creates
the new. `helm template` and what is built on it (Argo CD, Flux with server-side rendering off) cannot look, and this
check passes there: give each run a release name of its own.
*/ -}}
{{- define "nearer.checks.active" -}}
{{- $name := include "nearer.names.run" . -}}
{{- $jobs := lookup "batch/v1" "Job" .Release.Namespace "" -}}
{{- range (get $jobs "items" | default list) -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (get $labels "app.kubernetes.io/name") "nearer") (eq (get $labels "app.kubernetes.io/instance") $.Release.Name) (ne .metadata.name $name) -}}
{{- $over := false -}}
{{- range (dig "status" "conditions" list .) -}}
{{- if and (has .type (list "Complete" "Failed")) (eq .status "True") }}{{ $over = true }}{{ end -}}
{{- end -}}
{{- if not $over -}}
{{- fail (printf "release %s still runs %s, and this would be another run (%s) in its place, which would kill it.\n- to start the other run beside it, give it a release name of its own\n- to end the first one: helm uninstall %s -n %s, then install again; it goes on from its last checkpoint\n" $.Release.Name .metadata.name $name $.Release.Name $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
