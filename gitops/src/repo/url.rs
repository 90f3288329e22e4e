//! Repository URLs: comparing them, showing them, and taking them apart.

/// A repository URL, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct RepoUrl {
    /// What is handed to Git: without credentials.
    pub address: String,
    pub transport: Transport,
    /// Host with its port, lower case. Empty for local repositories.
    pub host: String,
    /// From the URL's user part. For ssh it is the login and stays in the address as well.
    pub username: String,
    /// From the URL's user part. Never shown.
    pub password: String,
}

impl std::fmt::Debug for RepoUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RepoUrl({})", self.address)
    }
}

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Http,
    Https,
    Ssh,
    File,
    Git,
}

impl RepoUrl {
    /// Takes `https://`, `http://`, `ssh://`, `git://`, `file://`, an absolute path, or `user@host:path`.
    ///
    /// # Errors
    /// What is wrong, without credentials.
    pub fn parse(text: &str) -> Result<RepoUrl, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("the repository URL is empty".into());
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(format!(
                "repository URL {} holds a blank or a control character",
                display(text).escape_debug()
            ));
        }
        if text.starts_with('/') {
            return Ok(RepoUrl::local(format!("file://{text}")));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return RepoUrl::parse_scp(text);
        };
        let transport = match scheme.to_ascii_lowercase().as_str() {
            "http" => Transport::Http,
            "https" => Transport::Https,
            "ssh" | "git+ssh" | "ssh+git" => Transport::Ssh,
            "git" => Transport::Git,
            "file" => {
                if !rest.starts_with('/') {
                    return Err(format!(
                        "repository URL {text} names a host or a relative path; expected file:///path"
                    ));
                }
                return Ok(RepoUrl::local(text.to_string()));
            }
            other => {
                return Err(format!(
                    "repository URL {} has the scheme {other:?}; expected https, http, ssh, git or file",
                    display(text)
                ));
            }
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        let host = host.to_ascii_lowercase();
        if host.is_empty() || host.starts_with('-') {
            return Err(format!("repository URL {} has no usable host", display(text)));
        }
        let scheme = if transport == Transport::Ssh { "ssh".to_string() } else { scheme.to_ascii_lowercase() };
        let address = match transport {
            Transport::Ssh if !username.is_empty() => format!("{scheme}://{username}@{host}/{path}"),
            _ => format!("{scheme}://{host}/{path}"),
        };
        Ok(RepoUrl {
            address,
            transport,
            host,
            username: percent_decoded(username),
            password: percent_decoded(password),
        })
    }

    fn parse_scp(text: &str) -> Result<RepoUrl, String> {
        let expected = || {
            format!(
                "repository URL {} is not understood; expected https://, ssh://, file:// or user@host:path",
                display(text)
            )
        };
        let (authority, path) = text.split_once(':').ok_or_else(expected)?;
        let (username, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let plain = |s: &str| s.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) && !s.starts_with('-');
        if host.is_empty() || path.is_empty() || path.starts_with(':') || !plain(host) || !plain(username) {
            return Err(expected());
        }
        Ok(RepoUrl {
            address: text.to_string(),
            transport: Transport::Ssh,
            host: host.to_ascii_lowercase(),
            username: username.to_string(),
            password: String::new(),
        })
    }

    fn local(address: String) -> RepoUrl {
        RepoUrl {
            address,
            transport: Transport::File,
            host: String::new(),
            username: String::new(),
            password: String::new(),
        }
    }

    /// The host without its port.
    pub fn host_name(&self) -> &str {
        match self.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => &self.host,
        }
    }
}

/// The form in which two URLs of one repository are equal: lower case, trimmed, without user for http and without
/// `.git`, the scp form as `ssh://`.
pub fn normalize(url: &str) -> String {
    let mut text = url.trim().to_lowercase();
    if let Some(rest) = text.strip_prefix('/') {
        text = format!("file:///{rest}");
    }
    if !text.contains("://")
        && let Some((authority, path)) = text.split_once(':')
        && !path.starts_with(':')
    {
        text = format!("ssh://{authority}/{}", path.trim_start_matches('/'));
    }
    if let Some((scheme, rest)) = text.split_once("://")
        && matches!(scheme, "http" | "https")
        && let (authority, path) = rest.split_once('/').unwrap_or((rest, ""))
        && let Some((_, host)) = authority.rsplit_once('@')
    {
        text = format!("{scheme}://{host}/{path}");
    }
    let trimmed = text.trim_end_matches('/');
    trimmed.strip_suffix(".git").unwrap_or(trimmed).trim_end_matches('/').to_string()
}

/// The URL as it may be shown: user and password of an http URL are left out.
pub fn display(url: &str) -> String {
    let url = url.trim();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let Some((user, host)) = authority.rsplit_once('@') else { return url.to_string() };
    match user.split_once(':') {
        None if scheme.eq_ignore_ascii_case("ssh") => url.to_string(),
        _ if scheme.eq_ignore_ascii_case("ssh") => {
            let login = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{login}@{host}{path}")
        }
        _ => format!("{scheme}://{host}{path}"),
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_one_repository_are_equal() {
        let groups = [
            vec![
                "https://GitHub.com/Org/Repo.git",
                "https://github.com/org/repo",
                " https://u:p@github.com/org/repo/ ",
            ],
            vec!["git@github.com:org/repo.git", "ssh://git@github.com/org/repo", "ssh://git@GITHUB.com/org/repo.git"],
            vec!["file:///srv/git/a.git", "/srv/git/a"],
        ];
        for (i, group) in groups.iter().enumerate() {
            for url in group {
                for (j, other) in groups.iter().enumerate() {
                    for second in other {
                        assert_eq!(normalize(url) == normalize(second), i == j, "{url} {second}");
                    }
                }
            }
        }
    }

    #[test]
    fn credentials_are_taken_out() {
        let url = RepoUrl::parse("https://bob:s%40cret@Host:8443/a/B.git").unwrap();
        assert_eq!(url.address, "https://host:8443/a/B.git");
        assert_eq!((&*url.username, &*url.password, url.host_name()), ("bob", "s@cret", "host"));
        assert!(!format!("{url:?}").contains("cret"));
        for shown in [display("https://bob:secret@h/r"), display("ssh://git:secret@h/r"), display("https://secret@h")] {
            assert!(!shown.contains("secret"), "{shown}");
        }
        assert_eq!(display("ssh://git@h/r"), "ssh://git@h/r");
        assert_eq!(display("git@h:r"), "git@h:r");
    }

    #[test]
    fn what_is_not_a_repository_is_refused() {
        for bad in [
            "",
            "  ",
            "ext::sh -c id",
            "ext::sh",
            "--upload-pack=x",
            "ftp://h/r",
            "https:///r",
            "-oProxy:x",
            "ssh://-oProxyCommand=x/r",
            "a b",
            "just-a-name",
            "file://host/x",
            "x@-h:p",
        ] {
            assert!(RepoUrl::parse(bad).is_err(), "{bad:?}");
        }
        let error = RepoUrl::parse("ftp://user:secret@h/r").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
        for (good, transport) in [
            ("git@github.com:org/repo.git", Transport::Ssh),
            ("ssh://git@h:22/x", Transport::Ssh),
            ("/srv/git/x", Transport::File),
            ("file:///srv/x", Transport::File),
            ("http://h/x", Transport::Http),
        ] {
            assert_eq!(RepoUrl::parse(good).unwrap().transport, transport, "{good}");
        }
    }
}
