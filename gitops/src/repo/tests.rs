use super::testing::{Upstream, git};
use super::*;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn remotes(upstream: &Upstream) -> Remotes {
    Remotes::new(&upstream.cache(), Settings::default()).unwrap()
}

fn open(remotes: &Remotes, url: &str) -> (Arc<Remote>, Arc<Access>) {
    let repositories = Repositories::new();
    remotes.remote(url, &repositories.find(url, ""), &repositories).unwrap()
}

fn counts(remotes: &Remotes) -> (u64, u64) {
    (remotes.counters().ls_remote.load(Ordering::Relaxed), remotes.counters().fetch.load(Ordering::Relaxed))
}

async fn text(snapshot: &Snapshot, path: &str) -> String {
    let found = snapshot.lookup(path).await.unwrap().unwrap();
    String::from_utf8(snapshot.read(&found).await.unwrap()).unwrap()
}

#[tokio::test]
async fn commits_are_read_without_a_working_tree() {
    let upstream = Upstream::new();
    upstream.write("a/b.yaml", "one");
    upstream.write("a/c/d.yaml", "two\n\nthree");
    let first = upstream.commit("first");
    upstream.git(&["tag", "-a", "v1.0.0", "-m", "tag"]);
    upstream.write("a/b.yaml", "changed");
    let second = upstream.commit("second\n\nwith a body");
    let remotes = remotes(&upstream);
    let (remote, access) = open(&remotes, &upstream.url());

    let head = remote.resolve(&access, "HEAD", "", None).await.unwrap();
    assert_eq!(head.commit, second);
    let tag = remote.resolve(&access, "^1.0", "", None).await.unwrap();
    assert_eq!((&*tag.commit, tag.reference.as_deref()), (&*first, Some("refs/tags/v1.0.0")));

    let snapshot = remote.snapshot(&access, &second, None).await.unwrap();
    assert_eq!(text(&snapshot, "a/b.yaml").await, "changed");
    assert_eq!(text(&snapshot, "/a/./c/../c/d.yaml").await, "two\n\nthree");
    assert_eq!(snapshot.lookup("a/none").await.unwrap(), None);
    assert_eq!(snapshot.lookup("a/b.yaml/x").await.unwrap(), None);
    let old = remote.snapshot(&access, &first, None).await.unwrap();
    assert_eq!(text(&old, "a/b.yaml").await, "one");
    let same = |s: &Snapshot| {
        let s = s.clone();
        async move { s.lookup("a/c").await.unwrap().unwrap().oid }
    };
    assert_eq!(same(&snapshot).await, same(&old).await);
    assert_eq!(remote.changed(&access, &first, &second).await.unwrap(), ["a/b.yaml"]);
    let metadata = remote.metadata(&access, &second).await.unwrap();
    assert_eq!((&*metadata.author, &*metadata.message), ("Ada <ada@example.org>", "second\n\nwith a body"));
    assert!(metadata.date > 1_600_000_000);
    assert_eq!(remote.metadata(&access, &first).await.unwrap().tags, ["v1.0.0"]);
    assert_eq!(counts(&remotes), (1, 2));

    // A short commit that is here, and one that nobody has.
    assert_eq!(remote.resolve(&access, &first[..9], "", None).await.unwrap().commit, first);
    let unknown = remote.resolve(&access, "abcdef012", "", None).await.unwrap_err().to_string();
    assert!(unknown.ends_with("unable to resolve 'abcdef012' to a commit SHA"), "{unknown}");
}

#[tokio::test]
async fn links_stay_inside() {
    let upstream = Upstream::new();
    upstream.write("base/x.yaml", "x");
    upstream.write("base/deep/y.yaml", "y");
    upstream.link("app/x.yaml", "../base/x.yaml");
    upstream.link("app/dir", "../base/deep");
    upstream.link("app/chain", "dir");
    upstream.link("app/out", "../../etc/passwd");
    upstream.link("app/absolute", "/etc/passwd");
    upstream.link("app/loop", "loop");
    let commit = upstream.commit("links");
    let remotes = remotes(&upstream);
    let (remote, access) = open(&remotes, &upstream.url());
    let snapshot = remote.snapshot(&access, &commit, None).await.unwrap();
    assert_eq!(text(&snapshot, "app/x.yaml").await, "x");
    assert_eq!(text(&snapshot, "app/chain/y.yaml").await, "y");
    assert_eq!(snapshot.lookup("app/dir/../x.yaml").await.unwrap().unwrap().path, "base/x.yaml");
    for outside in ["app/out", "app/absolute", "../x", "app/../../x"] {
        let error = snapshot.lookup(outside).await.unwrap_err().to_string();
        assert!(error.contains("leads out of the repository") && error.contains(outside), "{error}");
    }
    assert!(snapshot.lookup("app/loop").await.unwrap_err().to_string().contains("symbolic links"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_shares_one_question_and_one_fetch() {
    let upstream = Upstream::new();
    upstream.write("a", "1");
    let commit = upstream.commit("one");
    let remotes = Arc::new(remotes(&upstream));
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let (remotes, url) = (remotes.clone(), upstream.url());
            tokio::spawn(async move {
                let (remote, access) = open(&remotes, &url);
                let revision = remote.resolve(&access, "main", "", None).await.unwrap();
                remote.snapshot(&access, &revision.commit, None).await.unwrap().commit().to_string()
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), commit);
    }
    assert_eq!(counts(&remotes), (1, 1));

    // News is seen when somebody says so, by all that ask since then, with one more question.
    upstream.write("a", "2");
    let next = upstream.commit("two");
    let (remote, access) = open(&remotes, &upstream.url());
    assert_eq!(remote.resolve(&access, "main", "", None).await.unwrap().commit, commit);
    let since = Some(Instant::now());
    for _ in 0..5 {
        assert_eq!(remote.resolve(&access, "main", "", since).await.unwrap().commit, next);
    }
    assert_eq!(counts(&remotes).0, 2);
    upstream.commit("three");
    remotes.invalidate(&upstream.url()).await;
    assert_ne!(remote.resolve(&access, "main", "", None).await.unwrap().commit, next);
}

#[tokio::test]
async fn each_failure_is_its_own() {
    let upstream = Upstream::new();
    upstream.write("a", "1");
    upstream.commit("one");
    let remotes = remotes(&upstream);

    let (remote, access) = open(&remotes, &upstream.url());
    let error = remote.resolve(&access, "no-such-branch", "", None).await.unwrap_err();
    assert!(matches!(error, RepoError::UnknownRevision { .. }), "{error:?}");
    assert!(error.to_string().contains(&upstream.url()));
    let missing = "1".repeat(40);
    let error = remote.snapshot(&access, &missing, None).await.unwrap_err();
    assert!(matches!(error, RepoError::CommitNotFound { .. }), "{error:?}");

    let (gone, access) = open(&remotes, "file:///nowhere/at/all");
    let error = gone.resolve(&access, "HEAD", "", None).await.unwrap_err();
    assert!(matches!(error, RepoError::RepositoryNotFound { .. }), "{error:?}");

    // Port 1 of this machine: nobody listens there.
    let (closed, access) = open(&remotes, "http://user:hunter2@127.0.0.1:1/r.git");
    let error = closed.resolve(&access, "HEAD", "", None).await.unwrap_err();
    assert!(matches!(error, RepoError::Unreachable { .. }), "{error:?}");
    assert!(!format!("{error:?} {error}").contains("hunter2"));
    let before = counts(&remotes).0;
    assert!(closed.resolve(&access, "HEAD", "", None).await.is_err());
    assert_eq!(counts(&remotes).0, before, "a failure is not repeated at once");
    assert!(closed.resolve(&access, "HEAD", "", Some(Instant::now())).await.is_err());
    assert_eq!(counts(&remotes).0, before + 1, "unless somebody asks for it");

    let repositories = Repositories::new();
    let bad = remotes.remote("ext::sh -c id", &repositories.find("x", ""), &repositories).unwrap_err();
    assert!(matches!(bad, RepoError::InvalidUrl(_)));
}

#[tokio::test]
async fn a_repository_that_disappears_and_comes_back() {
    let upstream = Upstream::new();
    upstream.write("a", "1");
    let commit = upstream.commit("one");
    let remotes = remotes(&upstream);
    let (remote, access) = open(&remotes, &upstream.url());
    remote.resolve(&access, "main", "", None).await.unwrap();
    remote.snapshot(&access, &commit, None).await.unwrap();
    let away = upstream.dir.path().join("away");
    std::fs::rename(upstream.work(), &away).unwrap();
    let error = remote.resolve(&access, "main", "", Some(Instant::now())).await.unwrap_err();
    assert!(matches!(error, RepoError::RepositoryNotFound { .. }), "{error:?}");
    // What was fetched is still there.
    let snapshot = remote.snapshot(&access, &commit, None).await.unwrap();
    assert_eq!(text(&snapshot, "a").await, "1");
    std::fs::rename(&away, upstream.work()).unwrap();
    assert_eq!(remote.resolve(&access, "main", "", Some(Instant::now())).await.unwrap().commit, commit);
}

#[tokio::test]
async fn a_damaged_copy_is_made_anew() {
    let upstream = Upstream::new();
    upstream.write("a", "1");
    let first = upstream.commit("one");
    {
        let remotes = remotes(&upstream);
        let (remote, access) = open(&remotes, &upstream.url());
        remote.snapshot(&access, &first, None).await.unwrap();
    }
    // As a kill in the middle leaves it: a lock, and a copy without its objects.
    let copy = std::fs::read_dir(upstream.cache().join("git")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(copy.join("shallow.lock"), "").unwrap();
    std::fs::remove_dir_all(copy.join("objects")).unwrap();
    upstream.write("a", "2");
    let second = upstream.commit("two");
    let remotes = remotes(&upstream);
    let (remote, access) = open(&remotes, &upstream.url());
    for (commit, content) in [(&second, "2"), (&first, "1")] {
        let snapshot = remote.snapshot(&access, commit, None).await.unwrap();
        assert_eq!(text(&snapshot, "a").await, content);
    }
    // What was read before is not believed when it is taken away.
    std::fs::remove_dir_all(copy.join("objects")).unwrap();
    remote.snapshot(&access, &second, None).await.unwrap();
    assert!(copy.join("objects").exists());
}

/// Serves `git http-backend` for `root`, and wants this Authorization header.
async fn serve(root: std::path::PathBuf, wanted: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let root = root.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut buffer = [0; 8192];
                let split = loop {
                    let n = stream.read(&mut buffer).await.unwrap();
                    request.extend_from_slice(&buffer[..n]);
                    if let Some(at) = request.windows(4).position(|w| w == b"\r\n\r\n") {
                        break at;
                    }
                    assert!(n > 0);
                };
                let head = String::from_utf8_lossy(&request[..split]).into_owned();
                let mut body = request[split + 4..].to_vec();
                let header = |name: &str| {
                    head.lines()
                        .filter_map(|line| line.split_once(": "))
                        .find(|(key, _)| key.eq_ignore_ascii_case(name))
                        .map(|(_, value)| value.to_string())
                };
                let length: usize = header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
                while body.len() < length {
                    let n = stream.read(&mut buffer).await.unwrap();
                    body.extend_from_slice(&buffer[..n]);
                }
                if header("authorization").as_deref() != Some(wanted) {
                    let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
                                  Content-Length: 0\r\nConnection: close\r\n\r\n";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    return;
                }
                let mut words = head.split_whitespace();
                let (method, target) = (words.next().unwrap(), words.next().unwrap());
                let (path, query) = target.split_once('?').unwrap_or((target, ""));
                let mut child = tokio::process::Command::new("git")
                    .args(["-c", "safe.directory=*", "http-backend"])
                    .env("GIT_PROJECT_ROOT", &root)
                    .env("GIT_HTTP_EXPORT_ALL", "1")
                    .env("GIT_CONFIG_COUNT", "1")
                    .env("GIT_CONFIG_KEY_0", "safe.directory")
                    .env("GIT_CONFIG_VALUE_0", "*")
                    .env("REQUEST_METHOD", method)
                    .env("PATH_INFO", path)
                    .env("QUERY_STRING", query)
                    .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
                    .env("CONTENT_LENGTH", length.to_string())
                    .env("HTTP_CONTENT_ENCODING", header("content-encoding").unwrap_or_default())
                    .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default())
                    .stdin(std::process::Stdio::piped())
                    .stdout(std::process::Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut stdin = child.stdin.take().unwrap();
                stdin.write_all(&body).await.unwrap();
                drop(stdin);
                let output = child.wait_with_output().await.unwrap().stdout;
                let at = output.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
                let head = String::from_utf8_lossy(&output[..at]).into_owned();
                let status =
                    head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_string();
                let answer = format!(
                    "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    output.len() - at - 4
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.write_all(&output[at + 4..]).await.unwrap();
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn over_http_with_right_and_wrong_credentials() {
    let upstream = Upstream::new();
    upstream.write("a", "over http");
    let commit = upstream.commit("one");
    git(upstream.dir.path(), &["clone", "-q", "--bare", "upstream", "served.git"]);
    // dTpodW50ZXIy is u:hunter2.
    let base = serve(upstream.dir.path().to_path_buf(), "Basic dTpodW50ZXIy").await;
    let url = format!("{base}/served.git");
    let remotes = remotes(&upstream);
    let with = |password: &str| {
        let mut repositories = Repositories::new();
        let secret = json!({"metadata": {"name": "s", "labels": {crate::secret::SECRET_TYPE_LABEL: "repository"}},
            "stringData": {"url": url, "username": "u", "password": password}});
        repositories.add_secret(&secret).unwrap();
        remotes.remote(&url, &repositories.find(&url, ""), &repositories).unwrap()
    };
    let (remote, access) = with("wrong-hunter3");
    let error = remote.resolve(&access, "main", "", None).await.unwrap_err();
    assert!(matches!(error, RepoError::Authentication { .. }), "{error:?}");
    let shown = format!("{error:?} {error}");
    assert!(shown.contains(&url) && !shown.contains("hunter3"), "{shown}");

    let (remote, access) = with("hunter2");
    // The right password is tried at once.
    let revision = remote.resolve(&access, "main", "", None).await.unwrap();
    assert_eq!(revision.commit, commit);
    let snapshot = remote.snapshot(&access, &commit, None).await.unwrap();
    assert_eq!(text(&snapshot, "a").await, "over http");
    let (remote, access) = open(&remotes, &format!("{base}/other.git"));
    assert!(remote.resolve(&access, "main", "", None).await.is_err());
}

#[tokio::test]
async fn listing_over_http_takes_no_git() {
    let upstream = Upstream::new();
    upstream.write("a", "1");
    let first = upstream.commit("one");
    upstream.git(&["tag", "-a", "-m", "x", "v1.2.0"]);
    git(upstream.dir.path(), &["clone", "-q", "--bare", "upstream", "served.git"]);
    let base = serve(upstream.dir.path().to_path_buf(), "Basic dTpw").await;
    let url = format!("{}/served.git", base.replace("://", "://u:p@"));
    let settings = Settings { git: "/nowhere/git".into(), ..Settings::default() };
    let remotes = Remotes::new(&upstream.cache(), settings).unwrap();
    let (remote, access) = open(&remotes, &url);
    for revision in ["HEAD", "main", "refs/heads/main", "v1.2.0", "^1"] {
        assert_eq!(remote.resolve(&access, revision, "", None).await.unwrap().commit, first, "{revision}");
    }
    assert_eq!(counts(&remotes), (1, 0));
    upstream.write("a", "2");
    let second = upstream.commit("two");
    upstream.git(&["push", "-q", "../served.git", "main"]);
    // By now it is known how this server is asked.
    for revision in ["main", "HEAD"] {
        let found = remote.resolve(&access, revision, "", Some(Instant::now())).await.unwrap();
        assert_eq!(found.commit, second);
    }
    assert_eq!(remote.resolve(&access, "v1.2.0", "", None).await.unwrap().commit, first);
    assert_eq!(counts(&remotes), (3, 0));
}

#[tokio::test]
async fn many_fetches_are_tidied() {
    let upstream = Upstream::new();
    let remotes = remotes(&upstream);
    let (remote, access) = open(&remotes, &upstream.url());
    let mut last = String::new();
    for i in 0..70 {
        upstream.write("a", &i.to_string());
        last = upstream.commit("x");
        remote.snapshot(&access, &last, None).await.unwrap();
    }
    let copy = std::fs::read_dir(upstream.cache().join("git")).unwrap().next().unwrap().unwrap().path();
    let packs = std::fs::read_dir(copy.join("objects/pack")).unwrap().count();
    assert!(packs < 60, "{packs} files in objects/pack");
    let snapshot = remote.snapshot(&access, &last, None).await.unwrap();
    assert_eq!(text(&snapshot, "a").await, "69");
}
