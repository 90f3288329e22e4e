//! moto as AWS: Elastic Load Balancing that keeps what it is told, and carries no traffic.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Url;

use crate::process::tail;

const REGION: &str = "eu-west-1";
/// The services' names in signatures, and the versions of their APIs.
const EC2: (&str, &str) = ("ec2", "2016-11-15");
const BALANCING: (&str, &str) = ("elasticloadbalancing", "2015-12-01");

/// A running moto on the machine's own address, with an account that nobody else uses. Killed when dropped.
pub struct Moto {
    child: Child,
    url: String,
    client: reqwest::Client,
    log: tempfile::TempPath,
}

/// A load balancer that forwards everything by the weights of its one rule.
#[derive(Debug, Clone)]
pub struct LoadBalancer {
    pub arn: String,
    pub dns_name: String,
    rule: String,
}

/// What makes a program's AWS SDK ask the moto on this port.
pub fn environment(port: u16) -> Vec<(String, String)> {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        set("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{port}")),
        set("AWS_REGION", REGION),
        set("AWS_ACCESS_KEY_ID", "test"),
        set("AWS_SECRET_ACCESS_KEY", "test"),
        // Nobody waits for an address that only machines of AWS have.
        set("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

impl Moto {
    /// Starts it on a free port, from what [`crate::install::moto`] gives, and waits until it answers.
    pub async fn start(packages: &Path) -> Result<(Self, u16)> {
        let [port] = crate::controller::free_ports()?;
        Ok((Self::start_on(packages, port).await?, port))
    }

    /// Starts it on this port.
    pub async fn start_on(packages: &Path, port: u16) -> Result<Self> {
        let log = tempfile::Builder::new().prefix("tidegate-moto-").suffix(".log").tempfile()?.into_temp_path();
        let output = File::options().append(true).open(&log)?;
        let mut command = Command::new("python3");
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]).env("PYTHONPATH", packages);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("start moto")?;
        let url = format!("http://127.0.0.1:{port}/");
        let mut moto = Self { child, url, client: crate::http::client()?, log };
        let ready = format!("{}moto-api/", moto.url);
        crate::wait_for("moto", Duration::from_secs(60), async || {
            // One that has ended will not answer however long it is waited for.
            if let Some(status) = moto.child.try_wait()? {
                return Ok(Err(status));
            }
            moto.client.get(&ready).send().await?.error_for_status()?;
            Ok(Ok(()))
        })
        .await?
        .map_err(|status| anyhow::anyhow!("moto ended with {status}:\n{}", tail(&moto.log, 10)))?;
        Ok(moto)
    }

    /// Calls an action of a service; gives the answer's XML.
    async fn call(&self, service: (&str, &str), action: &str, parameters: &[(String, String)]) -> Result<String> {
        let (service, version) = service;
        let mut form = Url::parse(&self.url)?;
        form.query_pairs_mut().append_pair("Action", action).append_pair("Version", version).extend_pairs(parameters);
        // moto checks no signature, but takes service and region from it.
        let signature = format!(
            "AWS4-HMAC-SHA256 Credential=test/20200101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = self.client.post(&self.url).header("authorization", signature);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let body = form.query().unwrap_or_default().to_owned();
        let answer = request.body(body).send().await.with_context(|| format!("ask moto for {action}"))?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "moto answered {action} with {status}: {text}");
        Ok(text)
    }

    /// Makes a target group for addresses, with one tag. Gives its ARN.
    pub async fn target_group(&self, name: &str, tag: (&str, &str)) -> Result<String> {
        let networks = self.call(EC2, "DescribeSubnets", &[]).await?;
        let mut parameters = parameters([("Name", name), ("Protocol", "HTTP"), ("Port", "80"), ("TargetType", "ip")]);
        parameters.extend(self::parameters([
            ("VpcId", first(&networks, "vpcId")?),
            ("Tags.member.1.Key", tag.0),
            ("Tags.member.1.Value", tag.1),
        ]));
        let answer = self.call(BALANCING, "CreateTargetGroup", &parameters).await?;
        Ok(first(&answer, "TargetGroupArn")?.to_owned())
    }

    /// Makes a load balancer with one listener, whose one rule forwards every path to target groups by their weights.
    pub async fn load_balancer(&self, name: &str, weights: &[(&str, i64)]) -> Result<LoadBalancer> {
        let networks = self.call(EC2, "DescribeSubnets", &[]).await?;
        let [one, two] = [0, 1].map(|number| networks.split("<item>").nth(number + 1).unwrap_or_default());
        let wanted = parameters([
            ("Name", name),
            ("Subnets.member.1", first(one, "subnetId")?),
            ("Subnets.member.2", first(two, "subnetId")?),
        ]);
        let made = self.call(BALANCING, "CreateLoadBalancer", &wanted).await?;
        let arn = first(&made, "LoadBalancerArn")?.to_owned();
        let wanted = parameters([
            ("LoadBalancerArn", arn.as_str()),
            ("Protocol", "HTTP"),
            ("Port", "80"),
            ("DefaultActions.member.1.Type", "fixed-response"),
            ("DefaultActions.member.1.FixedResponseConfig.StatusCode", "404"),
        ]);
        let listener = self.call(BALANCING, "CreateListener", &wanted).await?;
        let mut wanted = parameters([
            ("ListenerArn", first(&listener, "ListenerArn")?),
            ("Priority", "1"),
            ("Conditions.member.1.Field", "path-pattern"),
            ("Conditions.member.1.Values.member.1", "/*"),
        ]);
        wanted.extend(forward(weights));
        let rule = self.call(BALANCING, "CreateRule", &wanted).await?;
        let dns_name = first(&made, "DNSName")?.to_owned();
        Ok(LoadBalancer { arn, dns_name, rule: first(&rule, "RuleArn")?.to_owned() })
    }

    /// Gives target groups other weights in the load balancer's rule.
    pub async fn set_weights(&self, balancer: &LoadBalancer, weights: &[(&str, i64)]) -> Result<()> {
        let mut wanted = parameters([("RuleArn", balancer.rule.as_str())]);
        wanted.extend(forward(weights));
        self.call(BALANCING, "ModifyRule", &wanted).await.map(drop)
    }

    /// Makes an address a target of a target group.
    pub async fn register(&self, target_group: &str, address: &str, port: u16) -> Result<()> {
        let port = port.to_string();
        let wanted = parameters([
            ("TargetGroupArn", target_group),
            ("Targets.member.1.Id", address),
            ("Targets.member.1.Port", &port),
        ]);
        self.call(BALANCING, "RegisterTargets", &wanted).await.map(drop)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
        crate::session::keep_log("moto's log", &tail(&self.log, 30));
    }
}

fn parameters<const COUNT: usize>(pairs: [(&str, &str); COUNT]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// The one action of a rule: forward to these target groups.
fn forward(weights: &[(&str, i64)]) -> Vec<(String, String)> {
    let mut wanted = parameters([("Actions.member.1.Type", "forward")]);
    for (number, (arn, weight)) in weights.iter().enumerate() {
        let group = format!("Actions.member.1.ForwardConfig.TargetGroups.member.{}", number + 1);
        wanted.push((format!("{group}.TargetGroupArn"), (*arn).to_owned()));
        wanted.push((format!("{group}.Weight"), weight.to_string()));
    }
    wanted
}

/// The text of an answer's first element of this name.
fn first<'a>(xml: &'a str, element: &str) -> Result<&'a str> {
    let found = xml.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once('<'));
    match found {
        Some((text, _)) if !text.is_empty() => Ok(text),
        _ => bail!("no {element} in moto's answer {xml}"),
    }
}
