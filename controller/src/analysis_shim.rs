pub mod template {
    use tidegate_crds::analysis::*;
    use tidegate_crds::rollout::AnalysisTemplateRef;
    pub trait Templates {
        fn template(&self, name: &str, cluster_scope: bool) -> Option<&AnalysisTemplateSpec>;
    }
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    pub struct TemplateError(pub String);
    pub fn run_spec(
        _: &[AnalysisTemplateRef],
        _: &dyn Templates,
        _: &[Argument],
        _: &[DryRun],
        _: &[MeasurementRetention],
    ) -> Result<AnalysisRunSpec, TemplateError> {
        Ok(Default::default())
    }
    pub fn resolve_args(
        a: &[Argument],
        _: &serde_json::Value,
        _: &str,
        _: &str,
    ) -> Result<Vec<Argument>, TemplateError> {
        Ok(a.to_vec())
    }
}
