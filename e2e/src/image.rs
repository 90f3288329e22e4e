//! Container images without a registry: an OCI layout made of a binary and the libraries it is linked to, imported
//! into the node's containerd.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use serde_json::{Value, json};

use crate::cluster::CONTAINERD_SOCKET;
use crate::install::hex;
use crate::process::{output, which};
use crate::sandbox::Sandbox;

/// Something in an image's file system.
#[derive(Debug, Clone)]
enum Entry {
    File { source: PathBuf, mode: u32 },
    Text { content: String, mode: u32 },
    Link(String),
    Directory { mode: u32 },
}

/// One file system under one or more names, each with an environment of its own.
#[derive(Debug, Clone, Default)]
pub struct Image {
    entries: BTreeMap<String, Entry>,
    entrypoint: Vec<String>,
    /// Reference and environment of every name.
    names: Vec<(String, Vec<String>)>,
}

impl Image {
    /// An image of a statically linked program that runs as pods' pause container.
    pub fn pause(reference: &str, program: &Path) -> Self {
        let mut image = Self::default();
        image.entries.insert("/pause".into(), Entry::File { source: program.into(), mode: 0o755 });
        image.entrypoint = vec!["/pause".into()];
        image.named(reference, &[])
    }

    /// An image with the usual directories and accounts, which runs `program` (at `/usr/local/bin/<name>`).
    pub fn of_program(program: &Path) -> Result<Self> {
        let name = program.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
        let at = format!("/usr/local/bin/{name}");
        let mut image = Self { entrypoint: vec![at.clone()], ..Self::default() };
        image.entries.insert("/tmp".into(), Entry::Directory { mode: 0o1777 });
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n\
                      tidegate:x:65532:65532:tidegate:/tmp:/bin/sh\n";
        image = image.text("/etc/passwd", passwd, 0o644);
        image = image.text("/etc/group", "root:x:0:\nnogroup:x:65534:\ntidegate:x:65532:\n", 0o644);
        image = image.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644);
        image.program(program, &at)
    }

    /// The controller's image: `tidegate`, Git with its transports, ssh, a shell, certificates, and the program
    /// that renders Helm charts and Kustomize overlays where there is one.
    pub fn controller(tidegate: &Path, render_worker: Option<&Path>) -> Result<Self> {
        let mut image = Self::of_program(tidegate)?;
        for program in ["git", "ssh", "sh"] {
            let source = which(program).with_context(|| format!("the controller's image needs {program}"))?;
            let at = source.to_string_lossy().into_owned();
            image = image.program(&source, &at)?;
        }
        // Git runs GIT_SSH_COMMAND by a shell at this path, which a system with a merged /usr has elsewhere.
        let shell = which("sh").context("sh")?;
        if shell != Path::new("/bin/sh") {
            image = image.link("/bin/sh", &shell.to_string_lossy());
        }
        let core = PathBuf::from(output(Command::new("git").arg("--exec-path"))?.trim());
        let http = core.join("git-remote-http");
        image = image.program(&http, &http.to_string_lossy())?;
        image = image.link(&core.join("git-remote-https").to_string_lossy(), "git-remote-http");
        for name in ["git", "git-upload-pack", "git-index-pack", "git-fetch-pack"] {
            // They are all the one git, called by other names.
            if core.join(name).exists() {
                let git = which("git").context("git")?;
                image = image.link(&core.join(name).to_string_lossy(), &git.to_string_lossy());
            }
        }
        let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
        if authorities.is_file() {
            image = image.file(&authorities.to_string_lossy(), authorities, 0o644);
        }
        if let Some(worker) = render_worker {
            let name = worker.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
            image = image.program(worker, &format!("/usr/local/bin/{name}"))?;
        }
        Ok(image)
    }

    /// Adds a program and all shared libraries that it is linked to, at the paths where it looks for them.
    pub fn program(mut self, source: &Path, at: &str) -> Result<Self> {
        self.entries.insert(at.to_owned(), Entry::File { source: source.into(), mode: 0o755 });
        for library in libraries(source)? {
            let path = library.to_string_lossy().into_owned();
            self.entries.entry(path).or_insert(Entry::File { source: library, mode: 0o755 });
        }
        Ok(self)
    }

    pub fn file(mut self, at: &str, source: &Path, mode: u32) -> Self {
        self.entries.insert(at.to_owned(), Entry::File { source: source.into(), mode });
        self
    }

    pub fn text(mut self, at: &str, content: &str, mode: u32) -> Self {
        self.entries.insert(at.to_owned(), Entry::Text { content: content.to_owned(), mode });
        self
    }

    /// Adds a symbolic link at `at`.
    pub fn link(mut self, at: &str, target: &str) -> Self {
        self.entries.insert(at.to_owned(), Entry::Link(target.to_owned()));
        self
    }

    /// Gives the image a (further) name, such as `tidegate/testserver:1`, under which the environment is `env`.
    pub fn named(mut self, reference: &str, env: &[(&str, &str)]) -> Self {
        let env = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.names.push((canonical(reference), env));
        self
    }

    /// Writes the image as a tar of an OCI layout.
    pub fn write_layout(&self, target: &Path) -> Result<()> {
        if self.names.is_empty() {
            bail!("an image needs a name");
        }
        let layer = self.layer()?;
        let mut blobs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let layer_digest = sha256(&layer);
        let layer_size = layer.len();
        blobs.insert(layer_digest.clone(), layer);
        let mut manifests = Vec::new();
        for (reference, env) in &self.names {
            let path = "PATH=/usr/local/bin:/usr/bin:/bin".to_owned();
            let env: Vec<&String> = std::iter::once(&path).chain(env).collect();
            let config = serde_json::to_vec(&json!({
                "architecture": architecture(),
                "os": "linux",
                "config": {"Entrypoint": self.entrypoint, "Env": env, "WorkingDir": "/"},
                "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
            }))?;
            let layer_type = "application/vnd.oci.image.layer.v1.tar";
            let manifest = serde_json::to_vec(&json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": descriptor("application/vnd.oci.image.config.v1+json", &sha256(&config), config.len()),
                "layers": [descriptor(layer_type, &layer_digest, layer_size)],
            }))?;
            let digest = sha256(&manifest);
            let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &digest, manifest.len());
            entry["annotations"] =
                json!({"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference});
            manifests.push(entry);
            blobs.insert(sha256(&config), config);
            blobs.insert(digest, manifest);
        }
        let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": manifests}))?;
        let file = fs::File::create(target).with_context(|| format!("create {}", target.display()))?;
        let mut layout = tar::Builder::new(std::io::BufWriter::new(file));
        append(&mut layout, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        append(&mut layout, "index.json", &index, 0o644)?;
        for (digest, content) in &blobs {
            append(&mut layout, &format!("blobs/sha256/{digest}"), content, 0o644)?;
        }
        std::io::Write::flush(&mut layout.into_inner()?)?;
        Ok(())
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let name = path.trim_start_matches('/');
            match entry {
                Entry::File { source, mode } => {
                    append(&mut layer, name, &stripped(source)?, *mode)?;
                }
                Entry::Text { content, mode } => append(&mut layer, name, content.as_bytes(), *mode)?,
                Entry::Link(target) => {
                    let mut header = header(tar::EntryType::Symlink, 0, 0o777);
                    layer.append_link(&mut header, name, target)?;
                }
                Entry::Directory { mode } => {
                    let mut header = header(tar::EntryType::Directory, 0, *mode);
                    layer.append_data(&mut header, format!("{name}/"), std::io::empty())?;
                }
            }
        }
        Ok(layer.into_inner()?)
    }
}

fn header(kind: tar::EntryType, size: usize, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    // The same content gives the same digest at any time.
    header.set_mtime(0);
    header
}

fn append<W: std::io::Write>(tar: &mut tar::Builder<W>, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, content.len(), mode);
    tar.append_data(&mut header, name, content).with_context(|| format!("add {name} to an image"))
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
}

fn sha256(content: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, content).as_ref())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The name under which kubelet asks for `reference`.
fn canonical(reference: &str) -> String {
    let (first, rest) = reference.split_once('/').unwrap_or(("", reference));
    let is_host = first.contains('.') || first.contains(':') || first == "localhost";
    let name = match (is_host, first.is_empty()) {
        (true, _) => reference.to_owned(),
        (false, true) => format!("docker.io/library/{rest}"),
        (false, false) => format!("docker.io/{reference}"),
    };
    let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged { name } else { format!("{name}:latest") }
}

/// The shared libraries and the loader that a program is linked to; none for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let done = crate::process::raw_output(Command::new("ldd").arg(program))?;
    let text = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        let error = String::from_utf8_lossy(&done.stderr);
        if error.contains("not a dynamic executable") || text.contains("not a dynamic executable") {
            return Ok(Vec::new());
        }
        bail!("ldd {}: {}", program.display(), error.trim());
    }
    parse_ldd(&text).with_context(|| format!("libraries of {}", program.display()))
}

fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.contains("not found") {
            bail!("{line}");
        }
        let target = line.split_once("=>").map_or(line, |(_, target)| target.trim());
        let path = target.split_whitespace().next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

/// Tells one build of a program from another.
pub fn stamp(binary: &Path) -> Result<String> {
    let metadata = fs::metadata(binary).with_context(|| format!("{}", binary.display()))?;
    let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH)?;
    Ok(format!("{} {}", metadata.len(), modified.as_nanos()))
}

/// The test server's image under all its tags, see the README of the harness: versions `1` to `5`, and ones that
/// misbehave (`bad`: half of the answers are errors; `slow`: every answer takes half a second; `unready`: never ready;
/// `crash`: ends at once with code 1).
pub fn testserver_image(binary: &Path) -> Result<Image> {
    let mut image = Image::of_program(binary)?;
    for version in ["1", "2", "3", "4", "5"] {
        image = image.named(&format!("tidegate/testserver:{version}"), &[("VERSION", version)]);
    }
    image = image
        .named("tidegate/testserver:bad", &[("VERSION", "bad"), ("ERROR_RATE", "0.5")])
        .named("tidegate/testserver:slow", &[("VERSION", "slow"), ("LATENCY_MS", "500")])
        .named("tidegate/testserver:unready", &[("VERSION", "unready"), ("FAIL_READY", "true")])
        .named("tidegate/testserver:crash", &[("VERSION", "crash"), ("CRASH", "1")]);
    Ok(image)
}

/// A file's content; that of a program without its debugging information where there is a `strip`, as an image
/// then imports in a fraction of the time.
fn stripped(source: &Path) -> Result<Vec<u8>> {
    let content = fs::read(source).with_context(|| format!("read {}", source.display()))?;
    if content.len() < 4 << 20 || !content.starts_with(b"\x7fELF") || which("strip").is_none() {
        return Ok(content);
    }
    let scratch = tempfile::NamedTempFile::new()?;
    match output(Command::new("strip").arg("-o").arg(scratch.path()).arg(source)) {
        Ok(_) => Ok(fs::read(scratch.path())?),
        Err(_) => Ok(content),
    }
}

/// Loads an image into the node's containerd.
pub fn import(sandbox: &Sandbox, image: &Image) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("tidegate-image-").suffix(".tar").tempfile()?;
    image.write_layout(scratch.path())?;
    import_layout(sandbox, scratch.path())
}

/// Loads a tar of an OCI layout into the node's containerd.
pub fn import_layout(sandbox: &Sandbox, tar: &Path) -> Result<()> {
    let tar = std::path::absolute(tar)?;
    let mut command = sandbox.command("ctr");
    command.args(["--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "import"]).arg(tar);
    output(&mut command).context("import an image").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubelet_asks_for() {
        for (given, full) in [
            ("tidegate/testserver:1", "docker.io/tidegate/testserver:1"),
            ("busybox", "docker.io/library/busybox:latest"),
            ("tidegate.local/pause:1", "tidegate.local/pause:1"),
            ("localhost/x", "localhost/x:latest"),
            ("host:5000/x", "host:5000/x:latest"),
        ] {
            assert_eq!(canonical(given), full);
        }
    }

    #[test]
    fn ldd_is_understood() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tstatically linked\n";
        let paths: Vec<String> = parse_ldd(text).unwrap().iter().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        let error = parse_ldd("\tlibmissing.so => not found\n").unwrap_err().to_string();
        assert!(error.contains("libmissing.so"), "{error}");
    }

    #[test]
    fn a_layout_names_every_tag_and_holds_each_blob_once() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        fs::write(&program, "content").unwrap();
        let image = Image::pause("a/b:1", &program).named("a/b:2", &[("VERSION", "2")]);
        let target = directory.path().join("image.tar");
        image.write_layout(&target).unwrap();
        let mut archive = tar::Archive::new(fs::File::open(&target).unwrap());
        let mut names = Vec::new();
        let mut index = Value::Null;
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            if let Some(digest) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(sha256(&content), digest);
            }
            if name == "index.json" {
                index = serde_json::from_slice(&content).unwrap();
            }
            names.push(name);
        }
        let tags: Vec<&str> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|manifest| manifest["annotations"]["io.containerd.image.name"].as_str().unwrap())
            .collect();
        assert_eq!(tags, ["docker.io/a/b:1", "docker.io/a/b:2"]);
        // One layer, two configurations, two manifests.
        assert_eq!(names.iter().filter(|name| name.starts_with("blobs/")).count(), 5);
    }
}
