//! The commands, as scripts and people use them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::process::output;
use tidegate_e2e::run;

use crate::scene::{self, Scene};

/// Every line, without the spaces at its ends and with single ones in between.
fn squeezed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_rollout_is_shown_as_table_tree_and_object() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "shown").await?;
        scene.deploy(scene::canary("web", "1", 2, json!([{"setWeight": 50}, {"pause": {}}]))).await?;
        scene.set_tag("web", "2")?;
        let rollout = scene.paused_at("web", 1).await?;
        let sets = scene.sizes("web", &[(1, 1), (2, 1)]).await?;

        scene
            .until("the old pod to be gone", async || {
                let pods = scene.list("v1", "Pod").await?;
                ensure!(pods.len() == 2, "{} pods", pods.len());
                Ok(())
            })
            .await?;
        let tree = scene.plugin(&["get", "rollout", "web"])?;
        assert!(!tree.contains('\u{1b}'), "colours without a terminal: {tree:?}");
        let lines = squeezed(&tree);
        for line in [
            "Name: web",
            &format!("Namespace: {}", scene.name()),
            "Status: ॥ Paused",
            "Message: CanaryPauseStep",
            "Strategy: Canary",
            "Step: 1/2",
            "SetWeight: 50",
            "ActualWeight: 50",
            "Images: tidegate/testserver:1 (stable)",
            "tidegate/testserver:2 (canary)",
            "Desired: 2",
            "Current: 2",
            "Updated: 1",
            "Ready: 2",
            "Available: 2",
            "NAME KIND STATUS AGE INFO",
        ] {
            assert!(lines.iter().any(|found| found == line), "no line {line:?} in\n{tree}");
        }
        for start in [
            "⟳ web Rollout ॥ Paused".to_owned(),
            "├──# revision:2".to_owned(),
            format!("│ └──⧉ web-{} ReplicaSet ✔ Healthy", sets[1].hash),
            "└──# revision:1".to_owned(),
            format!("└──⧉ web-{} ReplicaSet ✔ Healthy", sets[0].hash),
        ] {
            assert!(lines.iter().any(|found| found.starts_with(&start)), "no line {start:?} in\n{tree}");
        }
        assert_eq!(
            lines.iter().filter(|line| line.contains("□ web-") && line.contains("ready:1/1")).count(),
            2,
            "{tree}"
        );

        let table = squeezed(&scene.plugin(&["list", "rollouts"])?);
        assert_eq!(table[0], "NAME STRATEGY STATUS STEP SET-WEIGHT READY DESIRED UP-TO-DATE AVAILABLE");
        assert_eq!(table[1], "web Canary Paused 1/2 50 2/2 2 1 2");

        let object: Value = serde_json::from_str(&scene.plugin(&["get", "rollout", "web", "-o", "json"])?)?;
        assert_eq!(object["metadata"]["uid"], rollout["metadata"]["uid"]);
        let yaml = scene.plugin(&["get", "rollout", "web", "-o", "yaml"])?;
        let object: Value = serde_saphyr::from_str(&yaml)?;
        assert_eq!(object["spec"], rollout["spec"]);

        assert_eq!(scene.plugin(&["status", "web", "--watch=false"])?, "Paused - CanaryPauseStep\n");
        let (code, said, errors) = scene.plugin_ends(&["status", "web", "--timeout=1s"])?;
        assert_eq!((code, said.as_str()), (1, "Paused - CanaryPauseStep\n"), "{errors}");
        assert!(errors.contains("Rollout status watch exceeded timeout"), "{errors}");
        // A command that waits sees the end of the update.
        let mut waiting = scene.plugin_command(&["status", "web", "--timeout=60s"])?;
        let waiting = waiting.stdout(std::process::Stdio::piped()).spawn()?;
        scene.plugin(&["promote", "web"])?;
        let done = waiting.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && said.ends_with("Healthy\n"), "{said}");
        Ok(())
    })
}

#[test]
fn mistakes_end_with_an_error_that_names_them() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "mistakes").await?;
        scene.deploy(scene::canary("web", "1", 1, json!([{"setWeight": 50}]))).await?;
        for (args, words) in [
            (vec!["get", "rollout", "nothing"], "\"nothing\" not found"),
            (vec!["status", "nothing"], "\"nothing\" not found"),
            (vec!["promote", "nothing"], "\"nothing\" not found"),
            (vec!["abort", "nothing"], "\"nothing\" not found"),
            (vec!["undo", "web"], "no revision found"),
            (vec!["undo", "web", "--to-revision=9"], "revision 9"),
            (vec!["set", "image", "web", "other=image:1"], "other"),
            (vec!["promote"], "required"),
            (vec!["promote", "web", "--no-such-flag"], "--no-such-flag"),
        ] {
            let (code, said, errors) = scene.plugin_ends(&args)?;
            assert!(code != 0 && errors.contains(words) && said.is_empty(), "{args:?}: {code}: {said}{errors}");
        }
        // Nothing of this did anything.
        assert_eq!(scene.revisions("web").await?.len(), 1);
        let mut nowhere = scene.plugin_command(&["get", "rollout", "web", "--server=https://127.0.0.1:1"])?;
        let (code, _, errors) = scene::ends(&mut nowhere)?;
        assert!(code != 0 && errors.contains("Connection refused"), "{code}: {errors}");
        Ok(())
    })
}

#[test]
fn kubectl_finds_its_plugin() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "plugin").await?;
        scene.deploy(scene::canary("web", "1", 1, json!([{"setWeight": 50}]))).await?;
        let plugin = scene::plugin()?;
        let kubectl = |args: &[&str]| -> Result<String> {
            let mut command = cluster.kubectl();
            let path = command
                .get_envs()
                .find(|(name, _)| *name == "PATH")
                .and_then(|(_, value)| value.map(std::ffi::OsStr::to_os_string))
                .or_else(|| std::env::var_os("PATH"))
                .context("PATH")?;
            let own = plugin.parent().context("the plugin's directory")?.to_path_buf();
            command.env("PATH", std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path)))?);
            output(command.args(args))
        };
        let said = kubectl(&["argo", "rollouts", "status", "web", "--namespace", scene.name()])?;
        assert_eq!(said, "Healthy\n");
        assert!(!kubectl(&["argo", "rollouts", "version"])?.trim().is_empty());
        let script = kubectl(&["argo", "rollouts", "completion", "bash"])?;
        assert!(script.contains("complete ") && script.contains("promote"), "{script}");
        Ok(())
    })
}
