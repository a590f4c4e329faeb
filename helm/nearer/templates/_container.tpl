{{- /*
What the container is given: the settings document, its environment, its share of the node.
*/ -}}

{{- define "nearer.settings" -}}
{{- toYaml .Values.settings -}}
{{- end -}}

{{- /*
The environment. Every cache goes to /cache, whose size the store's cache is told (three quarters; model hub and
compilers have the rest). A name that pod.env gives too is the user's; `NEARER_…` would override the settings file, so
what the settings name themselves is left out here. Over several nodes: what torchrun's static rendezvous needs.
*/ -}}
{{- define "nearer.env.own" -}}
{{- $values := .root.Values -}}
{{- $env := dict
  "HOME" "/cache"
  "USER" "nearer"
  "LOGNAME" "nearer"
  "XDG_CACHE_HOME" "/cache"
  "HF_HOME" "/cache/huggingface"
  "TRITON_CACHE_DIR" "/cache/triton"
  "TORCHINDUCTOR_CACHE_DIR" "/cache/inductor"
  "TORCH_EXTENSIONS_DIR" "/cache/torch-extensions"
-}}
{{- $store := dig "store" dict $values.settings -}}
{{- if not (get $store "cache_dir") }}{{ $_ := set $env "NEARER_STORE__CACHE_DIR" "/cache/nearer" }}{{ end -}}
{{- if not (get $store "cache_gibibytes") -}}
{{- $_ := set $env "NEARER_STORE__CACHE_GIBIBYTES" (mulf (float64 $values.storage.cache.gibibytes) 0.75 | toString) -}}
{{- end -}}
{{- if gt (int $values.nodes) 1 -}}
{{- $gpus := int $values.pod.gpus -}}
{{- $_ := merge $env (dict
  "MASTER_ADDR" (printf "%s-0.%s" .name .name)
  "MASTER_PORT" "29500"
  "NNODES" (int $values.nodes | toString)
  "NPROC_PER_NODE" (max $gpus 1 | toString)
) -}}
{{- end -}}
{{- $env = merge dict $values.pod.env $env -}}
{{- range $name, $value := $env }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- if gt (int $values.nodes) 1 }}
- name: NODE_RANK
  valueFrom:
    fieldRef: {fieldPath: "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
{{- end }}
{{- end -}}

{{- define "nearer.env" -}}
{{- include "nearer.env.own" . }}
{{- range $name, $key := .root.Values.secrets.env }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ $key.secret }}, key: {{ $key.key }}}
{{- end }}
{{- end -}}

{{- /*
Resources as they are given, and two things added: the GPUs, and ephemeral storage for the volumes that live on the
node's disk (with one GiB for logs), so that the scheduler finds a node that has the room.
*/ -}}
{{- define "nearer.resources" -}}
{{- $values := .Values -}}
{{- $disk := add 1 (int $values.storage.tmp.gibibytes) -}}
{{- range list $values.storage.work $values.storage.cache -}}
{{- if not .claim }}{{ $disk = add $disk (int .gibibytes) }}{{ end -}}
{{- end -}}
{{- $added := dict "ephemeral-storage" (printf "%dGi" $disk) -}}
{{- if gt (int $values.pod.gpus) 0 -}}
{{- $_ := set $added $values.pod.gpuResource (int $values.pod.gpus | toString) -}}
{{- end -}}
requests:
  {{- toYaml (merge dict $values.pod.resources.requests $added) | nindent 2 }}
limits:
  {{- toYaml (merge dict $values.pod.resources.limits $added) | nindent 2 }}
{{- end -}}
