//! `set image`.

use super::{patch, undo};
use crate::cluster::Connection;
use crate::failure;
use crate::output::print;
use anyhow::{Result, bail};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use serde_json::Value;
use tidegate_crds::rollout::Rollout;

/// How often an update is tried again when somebody else changed the object in between.
const ATTEMPTS: usize = 5;

/// Changes fields of a Rollout.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Change the image of containers
    #[command(after_help = "Examples:
  # One container
  tidegate rollout set image web app=registry.example/web:2

  # Every container
  tidegate rollout set image web *=registry.example/web:2")]
    Image {
        /// Name of the Rollout
        #[arg(value_name = "ROLLOUT")]
        name: String,
        /// Container and image; `*` is every container
        #[arg(value_name = "CONTAINER=IMAGE", required = true, value_parser = container_image)]
        images: Vec<(String, String)>,
    },
}

fn container_image(text: &str) -> Result<(String, String), String> {
    match text.split('=').collect::<Vec<_>>().as_slice() {
        [container, image] if !container.is_empty() && !image.is_empty() => Ok(((*container).into(), (*image).into())),
        _ => Err(format!("found {text:?}, expected CONTAINER=IMAGE")),
    }
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let What::Image { name, images } = args.what;
    let namespace = connection.namespace.as_str();
    let rollouts = ApiResource::erase::<Rollout>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(connection.client.clone(), namespace, &rollouts);
    let rollout: Rollout = serde_json::from_value(serde_json::to_value(api.get(&name).await?)?)?;
    match &rollout.spec.workload_ref {
        None => {
            update(&api, &name, &images).await?;
            print(&format!("rollout \"{name}\" image updated\n"))
        }
        Some(workload) => {
            let (resource, path) = undo::workload_resource(workload)?;
            if path != "/spec/template" {
                bail!(
                    "{} {:?}: set image changes Rollouts, Deployments and ReplicaSets only",
                    workload.kind,
                    workload.name
                );
            }
            let api: Api<DynamicObject> = Api::namespaced_with(connection.client.clone(), namespace, &resource);
            update(&api, &workload.name, &images).await?;
            print(&format!("{} \"{}\" image updated\n", workload.kind.to_lowercase(), workload.name))
        }
    }
}

/// Reads, changes and writes, and again when somebody else wrote in between.
async fn update(api: &Api<DynamicObject>, name: &str, images: &[(String, String)]) -> Result<()> {
    let mut left = ATTEMPTS;
    loop {
        let mut object: Value = serde_json::to_value(api.get(name).await?)?;
        for (container, image) in images {
            patch::set_image(&mut object, container, image)?;
        }
        left -= 1;
        match api.replace(name, &PostParams::default(), &serde_json::from_value(object)?).await {
            Err(error) if failure::is_conflict(&error) && left > 0 => {}
            other => return Ok(other.map(|_| ())?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_container_and_image() {
        assert_eq!(container_image("a=b:1"), Ok(("a".into(), "b:1".into())));
        for bad in ["a", "a=b=c", "=b", "a="] {
            assert!(container_image(bad).is_err(), "{bad}");
        }
    }
}
