use super::*;
use serde_json::json;

fn secret(kind: &str, name: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(k, v)| (k.to_string(), json!(STANDARD.encode(v)))).collect();
    json!({"metadata": {"name": name, "labels": {SECRET_TYPE_LABEL: kind}}, "data": data})
}

fn repositories(secrets: &[Value]) -> Repositories {
    let mut all = Repositories::new();
    for secret in secrets {
        assert!(all.add_secret(secret).unwrap());
    }
    all
}

#[test]
fn the_longest_template_wins_and_an_entry_with_credentials_needs_none() {
    let all = repositories(&[
        secret("repo-creds", "org", &[("url", "https://git.example/org"), ("username", "org"), ("password", "p1")]),
        secret("repo-creds", "host", &[("url", "https://git.example"), ("username", "host"), ("password", "p2")]),
        secret("repository", "own", &[("url", "https://git.example/org/own.git"), ("username", "own")]),
        secret("repository", "bare", &[("url", "https://git.example/org/bare"), ("insecure", "true"), ("depth", "3")]),
    ]);
    let user = |url: &str| all.find(url, "default").username.clone();
    assert_eq!(user("https://GIT.example/org/other.git"), "org");
    assert_eq!(user("https://git.example/else/x"), "host");
    assert_eq!(user("https://git.example/org/own"), "own");
    assert_eq!(user("https://other.example/org/own"), "");
    let bare = all.find("https://git.example/org/bare.git", "default");
    assert_eq!((&*bare.username, bare.insecure, bare.depth), ("org", true, 3));
}

#[test]
fn a_template_does_not_reach_another_host() {
    let all = repositories(&[secret("repo-creds", "t", &[("url", "https://git.example"), ("password", "p")])]);
    assert!(all.find("https://git.example.evil.org/r", "").password.is_empty());
    assert!(all.find("https://git.example:8443/r", "").password.is_empty());
    assert_eq!(all.find("https://git.example/r", "").password.reveal(), "p");
}

#[test]
fn entries_of_the_project_go_first_and_stay_in_it() {
    let all = repositories(&[
        secret("repository", "all", &[("url", "https://h/r"), ("username", "all")]),
        secret("repository", "mine", &[("url", "https://h/r"), ("username", "mine"), ("project", "mine")]),
        secret("repository", "private", &[("url", "https://h/private"), ("username", "x"), ("project", "mine")]),
    ]);
    assert_eq!(all.find("https://h/r.git", "mine").username, "mine");
    assert_eq!(all.find("https://h/r.git", "other").username, "all");
    assert_eq!(all.find("https://h/private", "other").username, "");
}

#[test]
fn nothing_secret_is_shown() {
    let all = repositories(&[secret(
        "repository",
        "s",
        &[
            ("url", "https://h/r"),
            ("username", "user"),
            ("password", "hunter2-a"),
            ("bearerToken", "hunter2-b"),
            ("sshPrivateKey", "hunter2-c"),
            ("tlsClientCertKey", "hunter2-d"),
            ("githubAppPrivateKey", "hunter2-e"),
            ("gcpServiceAccountKey", "hunter2-f"),
            ("azureServicePrincipalClientSecret", "hunter2-g"),
            ("proxy", "http://u:hunter2-h@proxy"),
        ],
    )]);
    let shown = format!("{all:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(all.find("https://h/r", "").secrets().len(), 8);
}

#[test]
fn other_secrets_are_passed_by_and_bad_ones_named() {
    let mut all = Repositories::new();
    assert_eq!(all.add_secret(&json!({"metadata": {"name": "x"}})), Ok(false));
    assert_eq!(all.add_secret(&secret("cluster", "x", &[])), Ok(false));
    let error = all.add_secret(&secret("repository", "nourl", &[("password", "p")])).unwrap_err();
    assert_eq!(error.to_string(), "Secret nourl: data.url is missing; expected the URL of a repository");
    let broken = json!({"metadata": {"name": "b", "labels": {SECRET_TYPE_LABEL: "repository"}}, "data": {"url": "%%"}});
    assert_eq!(all.add_secret(&broken).unwrap_err().to_string(), "Secret b: data.url is not base64");
}

#[test]
fn trust_is_found_by_host() {
    let mut all = Repositories::new();
    all.set_certificates(&json!({"data": {"Git.Example": "PEM", "other:8443": "PEM2"}}));
    all.set_known_hosts(&json!({"data": {"ssh_known_hosts": "h ssh-ed25519 AAAA"}}));
    assert_eq!(all.certificates("git.example:443"), Some("PEM"));
    assert_eq!(all.certificates("other:8443"), Some("PEM2"));
    assert_eq!(all.certificates("nowhere"), None);
    assert_eq!(all.known_hosts(), "h ssh-ed25519 AAAA");
}

#[test]
fn clusters() {
    let config = json!({"bearerToken": "hunter2", "tlsClientConfig": {"caData": STANDARD.encode("CA"), "insecure": false,
        "keyData": STANDARD.encode("hunter2")}, "execProviderConfig": {"command": "k8s-auth", "env": {"T": "hunter2"}}});
    let read = ClusterSecret::from_secret(&secret(
        "cluster",
        "prod",
        &[
            ("name", "prod"),
            ("server", "https://1.2.3.4/"),
            ("namespaces", "a, b,"),
            ("config", &config.to_string()),
            ("shard", "2"),
        ],
    ))
    .unwrap()
    .unwrap();
    assert_eq!((&*read.name, &*read.server, read.shard), ("prod", "https://1.2.3.4", Some(2)));
    assert_eq!(read.namespaces, ["a", "b"]);
    assert_eq!((&*read.config.tls.ca, read.config.bearer_token.reveal()), ("CA", "hunter2"));
    assert!(!format!("{read:?}").contains("hunter2"));
    let broken = secret("cluster", "c", &[("server", "https://x"), ("config", r#"{"bearerToken": {"a": "hunter2"}}"#)]);
    let error = ClusterSecret::from_secret(&broken).unwrap_err().to_string();
    assert!(error.starts_with("Secret c: data.config") && !error.contains("hunter2"), "{error}");
    assert_eq!(ClusterSecret::from_secret(&secret("repository", "r", &[("url", "x")])).unwrap(), None);
}
