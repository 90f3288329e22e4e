//! What a remote lists, asked over http without `git`: a question costs a packet each way, not two processes.
//!
//! Git's smart protocol, as its documentation (`protocol-v2`, `http-protocol`) has it. Only answers that are understood
//! in full count; whatever else a server says is left to `git`, which knows more ways and says what is wrong.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client, RequestBuilder, StatusCode, redirect};

/// More than a million refs.
const MAX_ANSWER: usize = 128 << 20;
/// How long a connection waits for the next question.
const IDLE: Duration = Duration::from_secs(20);
/// Asks for version 2.
const VERSION: (&str, &str) = ("git-protocol", "version=2");

/// Whose certificate is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Whom the machine trusts.
    System,
    /// Those whom these certificates (PEM) vouch for, and nobody else.
    Only(String),
    Everybody,
}

/// The client of those remotes for which the machine's trust holds.
#[derive(Debug, Default)]
pub(crate) struct Browser(OnceLock<Option<Client>>);

/// How one remote is reached over http.
pub(crate) struct Web {
    address: String,
    authorization: Option<HeaderValue>,
    trust: Trust,
    /// Where another trust than the machine's holds.
    own: OnceLock<Option<Client>>,
}

/// How a remote is asked; learnt from its first answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[default]
    Unknown,
    /// It lists refs on request.
    Second,
}

impl Web {
    /// None when `authorization` cannot be sent as a header.
    pub(crate) fn new(address: &str, authorization: String, trust: Trust) -> Option<Web> {
        let authorization = if authorization.is_empty() {
            None
        } else {
            let mut value = HeaderValue::from_str(&authorization).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        Some(Web { address: address.trim_end_matches('/').to_string(), authorization, trust, own: OnceLock::new() })
    }

    fn client<'a>(&'a self, browser: &'a Browser) -> Option<&'a Client> {
        let place = if self.trust == Trust::System { &browser.0 } else { &self.own };
        place.get_or_init(|| client(&self.trust)).as_ref()
    }

    /// What the remote lists, in the format of `git ls-remote`.
    ///
    /// # Errors
    /// Why `git` has to be asked.
    pub(crate) async fn list(&self, browser: &Browser, dialect: &mut Dialect) -> Result<String, String> {
        let client = self.client(browser).ok_or("no client can be made")?;
        if *dialect == Dialect::Unknown {
            let url = format!("{}/info/refs?service=git-upload-pack", self.address);
            let answer = self.send(client.get(url), "application/x-git-upload-pack-advertisement").await?;
            match advertised(&answer)? {
                Advertised::Refs(listed) => return Ok(listed),
                Advertised::Second => {}
            }
        }
        let url = format!("{}/git-upload-pack", self.address);
        let question = client
            .post(url)
            .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(ACCEPT, "application/x-git-upload-pack-result")
            .body("0014command=ls-refs\n00010009peel\n0000");
        // A server that no longer understands is asked from the beginning the next time.
        *dialect = Dialect::Unknown;
        let answer = self.send(question, "application/x-git-upload-pack-result").await?;
        let listed = listed(&answer)?;
        *dialect = Dialect::Second;
        Ok(listed)
    }

    async fn send(&self, mut request: RequestBuilder, expected: &str) -> Result<Vec<u8>, String> {
        request = request.header(VERSION.0, VERSION.1);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let mut answer = request.send().await.map_err(|error| error.without_url().to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("status {}", answer.status()));
        }
        let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if content_type != expected {
            return Err(format!("content type {content_type:?}; expected {expected}"));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(format!("the answer is longer than {MAX_ANSWER} bytes"));
            }
        }
        Ok(body)
    }
}

fn client(trust: &Trust) -> Option<Client> {
    // Where a redirection leads, `git` has to say: credentials must not follow it.
    let builder = Client::builder().redirect(redirect::Policy::none()).pool_idle_timeout(IDLE).http1_only();
    // Some servers look for the word.
    let builder = builder.user_agent(concat!("git/tidegate-", env!("CARGO_PKG_VERSION")));
    let builder = match trust {
        Trust::System => builder,
        Trust::Everybody => builder.tls_danger_accept_invalid_certs(true),
        Trust::Only(pem) => builder.tls_certs_only(Certificate::from_pem_bundle(pem.as_bytes()).ok()?),
    };
    builder.build().ok()
}

/// What a server says first.
#[derive(Debug, PartialEq, Eq)]
enum Advertised {
    /// It speaks version 2, and refs are asked for.
    Second,
    /// An older one lists its refs at once.
    Refs(String),
}

fn advertised(answer: &[u8]) -> Result<Advertised, String> {
    let mut packets = Packets(answer);
    let mut first = packets.text()?.ok_or("it says nothing")?;
    // Servers of version 2 may leave it out.
    let is_introduced = first == "# service=git-upload-pack";
    if is_introduced {
        if packets.text()?.is_some() {
            return Err("no refs follow the name of the service".into());
        }
        first = packets.text()?.ok_or("it says nothing")?;
    }
    if first != "version 2" {
        if !is_introduced {
            return Err("it does not speak the smart protocol".into());
        }
        return Ok(Advertised::Refs(older(first, packets)?));
    }
    let mut has_refs = false;
    while let Some(line) = packets.text()? {
        has_refs |= line == "ls-refs" || line.starts_with("ls-refs=");
        if line.starts_with("object-format=") && line != "object-format=sha1" {
            return Err(format!("its objects have another format: {line}"));
        }
    }
    if has_refs { Ok(Advertised::Second) } else { Err("it lists no refs".into()) }
}

/// `<object> <ref>`, the first one followed by NUL and what the server can do.
fn older(first: String, mut packets: Packets<'_>) -> Result<String, String> {
    let mut next = Some(first);
    let mut listed = String::new();
    while let Some(line) = next {
        let line = line.split('\0').next().unwrap_or_default();
        let (oid, name) = line.split_once(' ').ok_or_else(|| format!("unexpected line {line:?}"))?;
        if !is_oid(oid) {
            return Err(format!("unexpected line {line:?}"));
        }
        // What an empty repository says in place of refs.
        if name != "capabilities^{}" {
            listed.push_str(&format!("{oid}\t{name}\n"));
        }
        next = packets.text()?;
    }
    Ok(listed)
}

/// `<object> <ref>`, followed by `peeled:<object>` for a tag that is an object of its own.
fn listed(answer: &[u8]) -> Result<String, String> {
    let mut packets = Packets(answer);
    let mut listed = String::new();
    while let Some(line) = packets.text()? {
        let unexpected = || format!("unexpected line {line:?}");
        let mut words = line.split(' ');
        let (oid, name) = (words.next().unwrap_or_default(), words.next().ok_or_else(unexpected)?);
        if !is_oid(oid) {
            return Err(unexpected());
        }
        listed.push_str(&format!("{oid}\t{name}\n"));
        if let Some(peeled) = words.find_map(|word| word.strip_prefix("peeled:")) {
            if !is_oid(peeled) {
                return Err(unexpected());
            }
            listed.push_str(&format!("{peeled}\t{name}^{{}}\n"));
        }
    }
    Ok(listed)
}

fn is_oid(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Lines with their length in front, in four hexadecimal digits.
struct Packets<'a>(&'a [u8]);

impl Packets<'_> {
    /// The next line without its end; None for the end of a list.
    fn text(&mut self) -> Result<Option<String>, String> {
        let digits = self.0.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
        let length = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).ok_or("the answer is cut off")?;
        if length == 0 {
            self.0 = &self.0[4..];
            return Ok(None);
        }
        let line = (length >= 4).then(|| self.0.get(4..length)).flatten().ok_or("the answer is cut off")?;
        self.0 = &self.0[length..];
        let text = String::from_utf8_lossy(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        match text.strip_prefix("ERR ") {
            Some(error) => Err(error.to_string()),
            None => Ok(Some(text.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(lines: &[&str]) -> Vec<u8> {
        let packet =
            |line: &&str| if line.is_empty() { "0000".into() } else { format!("{:04x}{line}", line.len() + 4) };
        lines.iter().map(packet).collect::<String>().into_bytes()
    }

    #[test]
    fn both_dialects_are_understood() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let second = ["# service=git-upload-pack\n", "", "version 2\n", "agent=git/2\n", "ls-refs=unborn\n", ""];
        for lines in [&second[..], &second[2..]] {
            assert_eq!(advertised(&packets(lines)), Ok(Advertised::Second));
        }
        let head = format!("{a} HEAD\0multi_ack symref=HEAD:refs/heads/main\n");
        let (tag, peeled) = (format!("{b} refs/tags/v1\n"), format!("{a} refs/tags/v1^{{}}\n"));
        let first = ["# service=git-upload-pack\n", "", &head, &tag, &peeled, ""];
        let expected = format!("{a}\tHEAD\n{b}\trefs/tags/v1\n{a}\trefs/tags/v1^{{}}\n");
        assert_eq!(advertised(&packets(&first)), Ok(Advertised::Refs(expected.clone())));
        let tag = format!("{b} refs/tags/v1 peeled:{a}\n");
        let head = format!("{a} HEAD symref-target:refs/heads/main\n");
        assert_eq!(listed(&packets(&[&head, &tag, ""])), Ok(expected));
        let empty = format!("{} capabilities^{{}}\0multi_ack\n", "0".repeat(40));
        let first = ["# service=git-upload-pack\n", "", &empty, ""];
        assert_eq!(advertised(&packets(&first)), Ok(Advertised::Refs(String::new())));
        assert_eq!(listed(b"0000"), Ok(String::new()));
    }

    #[test]
    fn what_is_not_understood_is_no_answer() {
        let a = "a".repeat(40);
        for lines in [
            vec![format!("{a} refs/heads/main\n")],
            vec![format!("{a}\n"), String::new()],
            vec!["ERR access denied\n".into(), String::new()],
            vec![format!("{} refs/heads/main\n", "a".repeat(64)), String::new()],
            vec![format!("{a} refs/tags/v1 peeled:x\n"), String::new()],
        ] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert!(listed(&packets(&lines)).is_err(), "{lines:?}");
        }
        for answer in [&b"<html>"[..], b"", b"0003", b"ffff", b"000"] {
            assert!(listed(answer).is_err() && advertised(answer).is_err(), "{answer:?}");
        }
        let service = "# service=git-upload-pack\n";
        for lines in [
            vec!["# service=git-receive-pack\n", "", "version 2\n", "ls-refs\n", ""],
            vec![&*format!("{a} HEAD\n"), ""],
            vec![service, "", "version 2\n", "fetch\n", ""],
            vec![service, "", "version 2\n", "ls-refs\n", "object-format=sha256\n", ""],
            vec![service, "", "version 1\n", ""],
        ] {
            assert!(advertised(&packets(&lines)).is_err(), "{lines:?}");
        }
    }
}
