{{/* Labels of every object. Not of pod templates: a new chart version alone must not restart an agent. */}}
{{- define "manx.labels" -}}
app.kubernetes.io/name: manx
app.kubernetes.io/part-of: manx
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | quote }}
{{- end }}

{{/* What a component's pods are selected by. Immutable in a DaemonSet, so it never grows. */}}
{{- define "manx.selector" -}}
app.kubernetes.io/name: manx
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* The image of a component: its own tag or digest where it has one. */}}
{{- define "manx.image" -}}
{{- $tag := default (default .root.Chart.AppVersion .root.Values.image.tag) .image.tag -}}
{{- $digest := default (ternary "" .root.Values.image.digest (ne .image.tag "")) .image.digest -}}
{{- if $digest -}}
{{ .root.Values.image.repository }}@{{ $digest }}
{{- else -}}
{{ .root.Values.image.repository }}:{{ $tag }}
{{- end }}
{{- end }}

{{/* Where /livez, /readyz and /metrics are served: to the kubelet alone, unless somebody else is to read them. */}}
{{- define "manx.healthAddress" -}}
{{ ternary "[::]" "127.0.0.1" .root.Values.metrics.enabled }}:{{ .port }}
{{- end }}

{{/* What every program of ours is told. */}}
{{- define "manx.env" -}}
- name: MANX_STORE
  value: kubernetes
- name: MANX_LOG
  value: {{ .Values.logLevel | quote }}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- if .Values.apiServer.host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.apiServer.host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.apiServer.port | quote }}
{{- end }}
{{- end }}

{{/* The kubelet asks on the loopback of the node. A daemon without its API server is alive and stays ready. */}}
{{- define "manx.probes" -}}
startupProbe:
  httpGet: {host: 127.0.0.1, path: /livez, port: {{ . }}}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {host: 127.0.0.1, path: /livez, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {host: 127.0.0.1, path: /readyz, port: {{ . }}}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{/* Root without a root's powers: files of the node are root's, everything else is the capabilities given. */}}
{{- define "manx.agentSecurity" -}}
runAsUser: 0
runAsGroup: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: [{{ join ", " . }}]
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Programs that touch nothing of the node. */}}
{{- define "manx.plainSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Where felix finds what it reaches of the node. */}}
{{- define "manx.felixEnv" -}}
- name: MANX_STATE_DIR
  value: /var/lib/manx/felix
- name: MANX_CNI_BIN_DIR
  value: /opt/cni/bin
- name: MANX_CNI_CONF_DIR
  value: /etc/cni/net.d
{{- end }}

{{/* What felix and its uninstallation reach of the node, and no more. */}}
{{- define "manx.felixMounts" -}}
- {name: run, mountPath: /run/manx}
- {name: state, mountPath: /var/lib/manx/felix}
- {name: cni-bin, mountPath: /opt/cni/bin}
- {name: cni-conf, mountPath: /etc/cni/net.d}
- {name: sysctl, mountPath: /host/proc/sys/net}
{{- end }}

{{- define "manx.felixVolumes" -}}
- name: run
  hostPath: {path: /run/manx, type: DirectoryOrCreate}
- name: state
  hostPath: {path: /var/lib/manx/felix, type: DirectoryOrCreate}
- name: cni-bin
  hostPath: {path: {{ .Values.cni.binDir | quote }}, type: DirectoryOrCreate}
- name: cni-conf
  hostPath: {path: {{ .Values.cni.confDir | quote }}, type: DirectoryOrCreate}
- name: sysctl
  hostPath: {path: /proc/sys/net, type: Directory}
{{- end }}

{{/* All kinds of manx.dev by plural, as api.md §1 lists them. */}}
{{- define "manx.kinds" -}}
fabricconfigurations fabricnodes bgppeers bgpsessions bgpadvertisements bgpfilters bfdprofiles ippools ipblocks loadbalancerpools tiers networkpolicies globalnetworkpolicies networksets globalnetworksets hostendpoints
{{- end }}

{{- define "manx.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
