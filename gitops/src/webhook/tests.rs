use super::*;
use serde_json::json;
use tidegate_crds::application::Source;

fn signed(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, body).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn secrets() -> WebhookSecrets {
    WebhookSecrets::new(
        ["webhook.github.secret", "webhook.gitlab.secret", "webhook.gogs.secret", "admin.password"]
            .map(|key| (key.to_string(), "s3cret".to_string())),
    )
}

fn ask(headers: &[(&str, &str)], body: &[u8]) -> Result<Event, WebhookError> {
    receive(|name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value), body, &secrets(), MAX_PAYLOAD)
}

fn github_payload() -> Value {
    json!({
        "ref": "refs/heads/main", "before": "a".repeat(40), "after": "b".repeat(40),
        "created": false, "deleted": false, "forced": false,
        "commits": [
            {"added": ["apps/a/new.yaml"], "modified": ["apps/a/x.yaml"], "removed": []},
            {"added": [], "modified": ["README.md"], "removed": ["apps/b/old.yaml"]}],
        "repository": {"clone_url": "https://github.com/Org/Repo.git", "ssh_url": "git@github.com:Org/Repo.git",
            "html_url": "https://github.com/Org/Repo", "url": "https://api.github.com/repos/Org/Repo", "default_branch": "main"}})
}

fn gitlab_payload() -> Value {
    json!({
        "object_kind": "push", "ref": "refs/heads/dev", "before": "a".repeat(40), "after": "b".repeat(40),
        "total_commits_count": 1, "commits": [{"added": [], "modified": ["x/y.yaml"], "removed": []}],
        "project": {"git_http_url": "https://gitlab.example/g/sub/r.git", "git_ssh_url": "git@gitlab.example:g/sub/r.git",
            "web_url": "https://gitlab.example/g/sub/r", "default_branch": "main"}})
}

fn push(event: Event) -> Push {
    match event {
        Event::Push(push) => push,
        Event::Ignored(what) => panic!("{what} was ignored"),
    }
}

#[test]
fn a_github_push() {
    let body = github_payload().to_string();
    let signature = format!("sha256={}", signed("s3cret", body.as_bytes()));
    let push = push(ask(&[("x-github-event", "push"), ("x-hub-signature-256", &signature)], body.as_bytes()).unwrap());
    assert_eq!(
        (&*push.reference, &*push.before, &*push.after),
        ("refs/heads/main", &*"a".repeat(40), &*"b".repeat(40))
    );
    assert!(push.default_branch);
    assert!(push.repo_urls.contains("git@github.com:Org/Repo.git") && push.repo_urls.len() == 3, "{push:?}");
    let files = push.changed_files.unwrap();
    assert_eq!(files.iter().collect::<Vec<_>>(), ["README.md", "apps/a/new.yaml", "apps/a/x.yaml", "apps/b/old.yaml"]);

    // The same as a form.
    let escaped: String = body.bytes().map(|b| format!("%{b:02X}")).collect();
    let form = format!("a=b&payload={escaped}");
    let signature = format!("sha256={}", signed("s3cret", form.as_bytes()));
    let headers = [
        ("x-github-event", "push"),
        ("x-hub-signature-256", &*signature),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    assert!(matches!(ask(&headers, form.as_bytes()), Ok(Event::Push(_))));
}

#[test]
fn gitlab_gitea_and_gogs_pushes() {
    let body = gitlab_payload().to_string();
    let gitlab = push(ask(&[("x-gitlab-event", "Push Hook"), ("x-gitlab-token", "s3cret")], body.as_bytes()).unwrap());
    assert_eq!((&*gitlab.reference, gitlab.default_branch, gitlab.repo_urls.len()), ("refs/heads/dev", false, 3));
    assert_eq!(gitlab.changed_files.unwrap().len(), 1);
    let body = github_payload().to_string();
    let signature = signed("s3cret", body.as_bytes());
    // Gitea says that it is all of them.
    let gitea = [
        ("x-gitea-event", "push"),
        ("x-gogs-event", "push"),
        ("x-github-event", "push"),
        ("x-gitea-signature", &*signature),
    ];
    assert!(push(ask(&gitea, body.as_bytes()).unwrap()).default_branch);
    let gogs = [("x-gogs-event", "push"), ("x-gogs-signature", &*signature)];
    assert!(push(ask(&gogs, body.as_bytes()).unwrap()).default_branch);
}

#[test]
fn what_is_not_signed_is_refused() {
    let body = github_payload().to_string();
    let good = signed("s3cret", body.as_bytes());
    let wrong = signed("other", body.as_bytes());
    let cases: [(Provider, Vec<(&str, String)>); 7] = [
        (Provider::GitHub, vec![("x-github-event", "push".into())]),
        (Provider::GitHub, vec![("x-github-event", "push".into()), ("x-hub-signature-256", format!("sha256={wrong}"))]),
        (Provider::GitHub, vec![("x-github-event", "push".into()), ("x-hub-signature-256", good.clone())]),
        (Provider::GitHub, vec![("x-github-event", "push".into()), ("x-hub-signature-256", "sha256=zz".into())]),
        (Provider::GitLab, vec![("x-gitlab-event", "Push Hook".into()), ("x-gitlab-token", "s3cre".into())]),
        (Provider::Gitea, vec![("x-gitea-event", "push".into()), ("x-gogs-signature", good.clone())]),
        (Provider::Gogs, vec![("x-gogs-event", "push".into()), ("x-gogs-signature", good[..62].into())]),
    ];
    for (provider, headers) in cases {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let error = ask(&headers, body.as_bytes()).unwrap_err();
        assert_eq!(error, WebhookError::Signature(provider), "{headers:?}");
        assert_eq!(error.status(), 401);
    }
    // Without a secret the peer takes it, and so do we.
    let open = receive(
        |name| (name == "x-github-event").then_some("push"),
        body.as_bytes(),
        &WebhookSecrets::default(),
        MAX_PAYLOAD,
    );
    assert!(matches!(open, Ok(Event::Push(_))));
    assert_eq!(ask(&[], b"{}").unwrap_err(), WebhookError::UnknownProvider);
    let large = receive(|_| None, &[0; 11], &secrets(), 10).unwrap_err();
    assert_eq!((large.status(), large), (413, WebhookError::TooLarge { found: 11, limit: 10 }));
    assert!(!format!("{:?}", secrets()).contains("s3cret"));
}

#[test]
fn other_events_and_bad_payloads() {
    let send = |event: &str, body: &str| {
        let signature = format!("sha256={}", signed("s3cret", body.as_bytes()));
        ask(&[("x-github-event", event), ("x-hub-signature-256", &signature)], body.as_bytes())
    };
    assert_eq!(send("ping", "{}"), Ok(Event::Ignored("ping".into())));
    for (body, expected) in [
        ("not json", "no JSON"),
        ("{}", "repository is missing"),
        (r#"{"repository": {"clone_url": "https://h/r"}}"#, "ref is missing"),
        (r#"{"repository": {}, "ref": "refs/heads/x"}"#, "no URL"),
    ] {
        let error = send("push", body).unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn an_incomplete_list_of_files_is_none() {
    let files = |change: &dyn Fn(&mut Value)| {
        let mut payload = github_payload();
        change(&mut payload);
        push(payload::github("push", &payload).unwrap()).changed_files
    };
    assert!(files(&|_| {}).is_some());
    type Change = fn(&mut Value);
    let changes: [Change; 6] = [
        |p| p["forced"] = json!(true),
        |p| p["before"] = json!("0".repeat(40)),
        |p| p["commits"] = json!([]),
        |p| p["commits"] = vec![p["commits"][0].clone(); 20].into(),
        |p| p["total_commits"] = json!(3),
        |p| p["commits"] = json!([{"id": "x"}]),
    ];
    for (i, change) in changes.iter().enumerate() {
        assert_eq!(files(change), None, "{i}");
    }
    let created = files(&|p| {
        p["ref"] = json!("refs/tags/v1");
        p["before"] = json!("0".repeat(40));
    });
    assert_eq!(created, None);
}

#[test]
fn whom_a_push_concerns() {
    let main = push(payload::github("push", &github_payload()).unwrap());
    let tag =
        Push { reference: "refs/tags/app-v1.4.0".into(), default_branch: false, changed_files: None, ..main.clone() };
    let source = |url: &str, path: &str, revision: &str| -> Vec<Source> {
        let mut source = json!({"repoURL": url, "path": path, "tagPrefix": "app-"});
        if !revision.is_empty() {
            source["targetRevision"] = json!(revision);
        }
        vec![serde_json::from_value(source).unwrap()]
    };
    let https = "https://user:pw@GITHUB.com/org/repo";
    let cases = [
        (&main, source(https, "apps/a", ""), "", Concerns::Yes),
        (&main, source("git@github.com:org/repo.git", "apps/a", "HEAD"), "", Concerns::Yes),
        (&main, source("ssh://git@github.com:22/Org/Repo", "apps/a", "main"), "", Concerns::Yes),
        (&main, source(https, "apps/a", "refs/heads/main"), "", Concerns::Yes),
        (&main, source(https, "apps/a", "dev"), "", Concerns::No),
        (&main, source(https, "apps/a", &"c".repeat(40)), "", Concerns::No),
        (&main, source("https://github.com/org/repo2", "apps/a", ""), "", Concerns::No),
        (&main, source("https://gitlab.com/org/repo", "apps/a", ""), "", Concerns::No),
        (&main, source(https, "apps/a", ""), ".", Concerns::Yes),
        (&main, source(https, "apps/c", ""), ".", Concerns::OtherPaths),
        (&main, source(https, "apps/c", ""), ".;/apps/b", Concerns::Yes),
        (&main, source(https, "apps/c", ""), "../a/x.yaml", Concerns::Yes),
        (&main, source(https, "apps/c", ""), "/apps/*/x.yaml", Concerns::Yes),
        (&main, source(https, "apps/c", ""), "/*.md", Concerns::Yes),
        (&main, source(https, "apps/c", ""), "/*.yaml", Concerns::OtherPaths),
        (&main, source(https, "apps/aa", ""), ".", Concerns::OtherPaths),
        (&tag, source(https, "apps/c", "app-v1.4.0"), ".", Concerns::Yes),
        (&tag, source(https, "apps/c", "^1.2"), "", Concerns::Yes),
        (&tag, source(https, "apps/c", "^2"), "", Concerns::No),
        (&tag, source(https, "apps/c", "1.4.0"), "", Concerns::No),
        (&tag, source(https, "apps/c", ""), "", Concerns::No),
    ];
    for (push, sources, annotation, expected) in cases {
        assert_eq!(concerns(push, &sources, annotation), expected, "{sources:?} {annotation:?}");
    }
}
