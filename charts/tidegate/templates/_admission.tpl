{{/* Name of the webhook's Service, and of the Secret that the chart makes. */}}
{{- define "tidegate.admissionName" -}}
{{- include "tidegate.fullname" . }}-admission
{{- end }}

{{/* Secret with the certificate that the controller serves. */}}
{{- define "tidegate.admissionSecret" -}}
{{- if .Values.admission.tlsSecret }}
{{- .Values.admission.tlsSecret }}
{{- else if .Values.admission.certManagerCertificate }}
{{- fail "admission.tlsSecret has to name the Secret of the Certificate in admission.certManagerCertificate" }}
{{- else }}
{{- include "tidegate.admissionName" . }}
{{- end }}
{{- end }}

{{/* What all webhooks have in common. Takes a list: the root context, and the CA in base64. */}}
{{- define "tidegate.admissionWebhook" -}}
{{- $ca := index . 1 }}
{{- with index . 0 -}}
admissionReviewVersions: [v1]
sideEffects: None
failurePolicy: {{ .Values.admission.failurePolicy }}
timeoutSeconds: {{ .Values.admission.timeoutSeconds }}
matchPolicy: Equivalent
{{- /* Where the status is no subresource, most updates are the controller's own: they are not asked about. */}}
matchConditions:
- name: spec-is-new
  expression: request.operation == 'CREATE' || object.spec != oldObject.spec
{{- if .Values.namespaced }}
namespaceSelector:
  matchLabels:
    kubernetes.io/metadata.name: {{ .Release.Namespace | quote }}
{{- end }}
clientConfig:
  service:
    name: {{ include "tidegate.admissionName" . }}
    namespace: {{ .Release.Namespace | quote }}
    path: /admission
    port: 443
  {{- with $ca }}
  caBundle: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
