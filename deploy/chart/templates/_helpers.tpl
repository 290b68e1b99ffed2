{{/* Gives each value that is null or missing its default. A key without a value in a file of values is null, and with
`--reuse-values` the values of an older chart lack what is new here. Every template begins with it, since nothing says which of
them is rendered first; what it sets, the others see. */}}
{{- define "orbweaver.wholeValues" -}}
{{- include "orbweaver.fill" (dict "values" .Values "defaults" (fromYaml (.Files.Get "files/values.yaml"))) -}}
{{- end }}

{{/* `values`, `defaults`. Labels are whatever somebody wants: one that is taken away stays away. */}}
{{- define "orbweaver.fill" -}}
{{- $values := .values -}}
{{- range $key, $default := .defaults -}}
{{- $value := index $values $key -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := set $values $key $default -}}
{{- else if and (kindIs "map" $default) (kindIs "map" $value) (ne $key "labels") -}}
{{- include "orbweaver.fill" (dict "values" $value "defaults" $default) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The image with its digest, else its tag, from the registry that the values ask for. */}}
{{- define "orbweaver.image" -}}
{{- $name := .Values.image.repository -}}
{{- with .Values.global.imageRegistryOverride -}}
{{- $parts := splitList "/" $name -}}
{{- if and (gt (len $parts) 1) (regexMatch "[.:]|^localhost$" (first $parts)) -}}
{{- $name = join "/" (rest $parts) -}}
{{- end -}}
{{- $name = printf "%s/%s" (trimSuffix "/" .) $name -}}
{{- end -}}
{{- with .Values.image.digest -}}
{{- printf "%s@%s" $name . -}}
{{- else -}}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{/* One object of deploy/ with the release's labels. `object`, `root`, and `annotations` of its own. */}}
{{- define "orbweaver.object" -}}
{{- $global := .root.Values.global -}}
{{- $metadata := .object.metadata -}}
{{- $release := dict
  "app.kubernetes.io/managed-by" .root.Release.Service
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) -}}
{{- $_ := set $metadata "labels" (merge $release ($metadata.labels | default dict) $global.commonLabels) -}}
{{- $annotations := merge (dict) (.annotations | default dict) ($metadata.annotations | default dict) $global.commonAnnotations -}}
{{- if $annotations }}{{ $_ := set $metadata "annotations" $annotations }}{{ end -}}
---
{{ toYaml .object }}
{{ end }}

{{/* Every object of the files that a pattern names. `root`, `pattern`, and `annotations` of all of them. */}}
{{- define "orbweaver.files" -}}
{{- $call := . -}}
{{- range $path, $_ := .root.Files.Glob .pattern }}
{{- range regexSplit "(?m)^---\\s*$" ($call.root.Files.Get $path | replace "orbweaver-system" $call.root.Release.Namespace) -1 }}
{{- $object := fromYaml . }}
{{- if $object.kind }}
{{ include "orbweaver.object" (dict "root" $call.root "object" $object "annotations" $call.annotations) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* conf.yml: the file as it is, or its values with those of the chart's over them. */}}
{{- define "orbweaver.settings" -}}
{{- $file := get (fromYaml (.Files.Get "files/configmap.yaml")).data "conf.yml" -}}
{{- if .Values.settings -}}
{{- toYaml (mergeOverwrite (fromYaml $file) .Values.settings) -}}
{{- else -}}
{{- $file -}}
{{- end -}}
{{- end }}

{{/* Changes a workload of deploy/ by the values of its component. `root`, `workload`, `values`. */}}
{{- define "orbweaver.workload" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $template := .workload.spec.template -}}
{{- $pod := $template.spec -}}
{{- $container := first $pod.containers -}}
{{- $settings := include "orbweaver.settings" $root -}}
{{- $_ := set $container "image" (include "orbweaver.image" $root) -}}
{{- $_ := set $container "imagePullPolicy" $root.Values.image.pullPolicy -}}
{{- $arguments := $values.extraArgs -}}
{{- if $root.Values.metrics.exposed }}{{ $arguments = prepend $arguments "--metrics-host=" }}{{ end -}}
{{- $_ := set $container "command" (concat $container.command $arguments) -}}
{{- $_ := set $container "env" (concat $container.env $values.extraEnv) -}}
{{- with $values.resources }}{{ $_ := set $container "resources" . }}{{ end -}}
{{- with $values.tolerations }}{{ $_ := set $pod "tolerations" . }}{{ end -}}
{{- with $values.affinity }}{{ $_ := set $pod "affinity" . }}{{ end -}}
{{- with $values.priorityClassName }}{{ $_ := set $pod "priorityClassName" . }}{{ end -}}
{{- with $root.Values.imagePullSecrets }}{{ $_ := set $pod "imagePullSecrets" . }}{{ end -}}
{{- $_ := set $pod "nodeSelector" (merge (dict) $values.nodeSelector $pod.nodeSelector) -}}
{{- $_ := set $template.metadata "labels" (merge (dict) $template.metadata.labels $values.podLabels $root.Values.global.commonLabels) -}}
{{- /* The settings are read at the start, so other settings are other pods. */ -}}
{{- $checksum := dict "checksum/settings" (sha256sum $settings) -}}
{{- $_ := set $template.metadata "annotations" (merge $checksum $values.podAnnotations) -}}
{{- end }}

{{/* The paths of all values below one, a line each. `path`, `value`. */}}
{{- define "orbweaver.leaves" -}}
{{- if and (kindIs "map" .value) .value -}}
{{- $path := .path -}}
{{- range $key, $value := .value }}
{{ include "orbweaver.leaves" (dict "path" (printf "%s.%s" $path $key) "value" $value) }}
{{- end -}}
{{- else -}}
{{ .path }}
{{- end -}}
{{- end }}

{{/* What agents are asked to write: a list as it is, or what goes into the node's own. */}}
{{- define "orbweaver.cniConfiguration" -}}
{{- $wanted := .Values.cniConfiguration -}}
{{- if $wanted.conflist -}}
{{- toJson $wanted.conflist -}}
{{- else if $wanted.ipam -}}
{{- toJson (dict "chain" $wanted.chain "ipam" $wanted.ipam) -}}
{{- else -}}
{{- toJson (dict "chain" $wanted.chain) -}}
{{- end -}}
{{- end }}
