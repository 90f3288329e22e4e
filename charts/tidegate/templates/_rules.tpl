{{/* What the controllers of Rollouts, AnalysisRuns and Experiments do, wherever they do it. */}}
{{- define "tidegate.rules.rollouts" -}}
- apiGroups: [argoproj.io]
  resources: [rollouts, rollouts/status, rollouts/finalizers]
  verbs: [get, list, watch, update, patch]
- apiGroups: [argoproj.io]
  resources: [analysisruns, analysisruns/status, analysisruns/finalizers, experiments, experiments/status, experiments/finalizers]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [argoproj.io]
  resources: [analysistemplates]
  verbs: [get, list, watch]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get, list, watch, create, update, patch, delete]
# The workloads that workloadRef names, and their scaling down.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, update, patch]
- apiGroups: [""]
  resources: [podtemplates]
  verbs: [get, list, watch, update, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, update, patch]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch]
{{- if .Values.rbac.readSecrets }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
{{- end }}
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, update, patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
{{- with .Values.traffic }}
{{- if .ingress }}
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, create, update, patch, delete]
{{- end }}
{{- if .gatewayAPI }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, grpcroutes, tcproutes, tlsroutes]
  verbs: [get, list, watch, update, patch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [get, list, watch]
{{- end }}
{{- if .istio }}
- apiGroups: [networking.istio.io]
  resources: [virtualservices, destinationrules]
  verbs: [get, list, watch, update, patch]
{{- end }}
{{- if .traefik }}
- apiGroups: [traefik.io, traefik.containo.us]
  resources: [traefikservices]
  verbs: [get, list, watch, update, patch]
{{- end }}
{{- if .smi }}
- apiGroups: [split.smi-spec.io]
  resources: [trafficsplits]
  verbs: [get, list, watch, create, update, patch]
{{- end }}
{{- if .ambassador }}
- apiGroups: [getambassador.io, x.getambassador.io]
  resources: [mappings, ambassadormappings]
  verbs: [get, list, watch, create, update, patch, delete]
{{- end }}
{{- if .apisix }}
- apiGroups: [apisix.apache.org]
  resources: [apisixroutes]
  verbs: [get, list, watch, create, update, patch, delete]
{{- end }}
{{- if .appMesh }}
- apiGroups: [appmesh.k8s.aws]
  resources: [virtualservices]
  verbs: [get, list, watch]
- apiGroups: [appmesh.k8s.aws]
  resources: [virtualnodes, virtualrouters]
  verbs: [get, list, watch, update, patch]
{{- end }}
{{- if .awsTargetGroups }}
- apiGroups: [elbv2.k8s.aws]
  resources: [targetgroupbindings]
  verbs: [get, list, watch]
{{- end }}
{{- end }}
{{- end }}

{{/* The objects of GitOps themselves; what Applications contain is another matter. */}}
{{- define "tidegate.rules.gitops" -}}
- apiGroups: [argoproj.io]
  resources: [applications, applications/finalizers]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [argoproj.io]
  resources: [applicationsets, applicationsets/status, applicationsets/finalizers, appprojects, appprojects/finalizers]
  verbs: [get, list, watch, update, patch]
{{- end }}
